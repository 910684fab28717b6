"""The real operator with the rights of the chart's ServiceAccount, and no others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_operator.api.common import CLOSED_LABEL, FINALIZER
from support.chart import NAMESPACE, OPERATOR, Manifest, rules
from support.chart_cluster import Cluster, Object, run_manifest, until
from support.operator_process import OperatorProcess
from support.sandboxd_process import SandboxdProcess

# Not seen in the audit log of a quiet cluster: owner references that block deletion are checked by
# an admission plugin that is off here; an apply that creates needs both rights and is logged as a
# patch; an event is patched when it comes again; a ReplicaSet is read when it has pods; a run is
# read when a write met a newer version of it.
UNSEEN = {
    ("update", "capibaraservices.capibara6.dev/finalizers"),
    ("create", "deployments.apps"),
    ("create", "services"),
    ("patch", "events.events.k8s.io"),
    ("get", "replicasets.apps"),
    ("get", "sandboxruns.capibara6.dev"),
}


@pytest.fixture(scope="module")
def sandboxd() -> Iterator[SandboxdProcess]:
    process = SandboxdProcess()
    try:
        process.start()
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, sandboxd: SandboxdProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator beside the chart, which brings everything but its pod."""
    folder = tmp_path_factory.mktemp("operator")
    url = f"--set=catalogue.provider.apiURL={sandboxd.url}"
    cluster.install(url, f"--set=catalogue.provider.sandboxURL={sandboxd.url}",
                    "--set=operator.enabled=false")  # fmt: skip
    key = f"--from-literal=apiKey={sandboxd.api_key}"
    cluster.do("create", "secret", "generic", "e2b", key, f"--namespace={NAMESPACE}")
    environment = {
        "KUBECONFIG": str(_kubeconfig(cluster, folder)),
        "CAPIBARA_METRICS_BIND_ADDRESS": "127.0.0.1:0",
    }
    process = OperatorProcess(environment, folder / "operator.log")
    try:
        yield process.start()
    finally:
        process.kill9()
        cluster.do("delete", "secret", "e2b", f"--namespace={NAMESPACE}")


def _kubeconfig(cluster: Cluster, folder: Path) -> Path:
    """The cluster's kubeconfig with the token of the ServiceAccount as its only credential."""
    config = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    token = cluster.do("create", "token", "capibara-operator", f"--namespace={NAMESPACE}")
    for user in config["users"]:
        user["user"] = {"token": token.strip()}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _wait(cluster: Cluster, namespace: str, name: str, phase: str) -> Object:
    run = f"sandboxrun.capibara6.dev/{name}"

    def status() -> Any:
        return cluster.get(run, f"--namespace={namespace}").get("status", {})

    until(lambda: status().get("phase") == phase, f"{name} is {phase}: {status()}")
    closed = f"--for=jsonpath={{.metadata.labels.{CLOSED_LABEL.replace('.', chr(92) + '.')}}}"
    cluster.do("wait", run, f"--namespace={namespace}", closed, "--timeout=60s")
    found: Object = cluster.get(run, f"--namespace={namespace}")
    return found


def _runs(cluster: Cluster, namespace: str) -> None:
    cluster.do("create", "secret", "generic", "s", "--from-literal=k=hidden", f"-n={namespace}")
    cluster.do("create", "configmap", "m", "--from-literal=k=shown", f"-n={namespace}")
    inputs: dict[str, Any] = {
        "code": "import os; open('out.txt', 'w').write(open('/data/m').read() + os.environ['S'])",
        "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "files": [{"path": "/data/m", "configMapKeyRef": {"name": "m", "key": "k"}}],
        "artifacts": [{"path": "out.txt"}],
    }
    cluster.create(run_manifest("good", namespace, **inputs))
    cluster.create(run_manifest("bad", namespace, code="raise SystemExit(3)"))
    cluster.create(run_manifest("brief", namespace, ttlSecondsAfterFinished=0))
    cluster.create(run_manifest("long", namespace, code="import time; time.sleep(600)"))
    good = _wait(cluster, namespace, "good", "Succeeded")
    assert FINALIZER not in good["metadata"].get("finalizers", [])
    assert good["status"]["outputs"]
    _wait(cluster, namespace, "bad", "Failed")
    gone = ("wait", "--for=delete", f"--namespace={namespace}", "--timeout=120s")
    cluster.do(*gone, "sandboxrun.capibara6.dev/brief")
    cluster.do("delete", "sandboxrun.capibara6.dev/long", f"-n={namespace}", "--timeout=120s")


def _service(cluster: Cluster, namespace: str) -> None:
    service = {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "CapibaraService",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"image": "example/web:1", "ports": [{"name": "http", "port": 8080}]},
    }
    cluster.create(service)
    name = ("deployment/web", f"--namespace={namespace}")
    cluster.do("wait", "--for=create", *name, "service/web", "--timeout=60s")
    patch = ("--type=merge", '--patch={"spec":{"suspend":true}}')
    cluster.do("patch", "capibaraservice.capibara6.dev/web", f"-n={namespace}", *patch)
    cluster.do("wait", "--for=jsonpath={.spec.replicas}=0", *name, "--timeout=60s")


def _requests(cluster: Cluster) -> list[tuple[str, str, int]]:
    """What the operator asked of the API server: verb, resource, status code."""
    found = []
    for line in cluster.audit_log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["user"]["username"] != OPERATOR or "objectRef" not in record:
            continue
        about = record["objectRef"]
        name = ".".join(filter(None, (about["resource"], about.get("apiGroup"))))
        resource = "/".join(filter(None, (name, about.get("subresource"))))
        found.append((record["verb"], resource, record.get("responseStatus", {}).get("code", 0)))
    return found


def _granted(role: Manifest) -> set[tuple[str, str]]:
    names = set()
    for _, rule in rules([role]):
        for resource in rule["resources"]:
            plural, slash, subresource = resource.partition("/")
            group = f".{rule['apiGroups'][0]}" if rule["apiGroups"][0] else ""
            names |= {(verb, f"{plural}{group}{slash}{subresource}") for verb in rule["verbs"]}
    return names


def test_operator_needs_all_its_rights_and_no_others(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    _runs(cluster, namespace)
    _service(cluster, namespace)
    assert operator.get("/readyz")[0] == 200
    requests = _requests(cluster)
    assert [request for request in requests if request[2] == 403] == []
    granted = _granted(cluster.get("clusterrole", "capibara-operator"))
    used = {(verb, resource) for verb, resource, _ in requests}
    assert granted - used - UNSEEN == set()


def test_a_run_whose_output_fits_costs_three_writes(
    cluster: Cluster, operator: OperatorProcess, namespace: str
) -> None:
    """Claim, result, close: the admission policy has added the finalizer by itself."""
    cluster.create(run_manifest("cheap", namespace, code="print('hi')"))
    _wait(cluster, namespace, "cheap", "Succeeded")
    assert operator.get("/readyz")[0] == 200
    writes = [
        (record["verb"], record["objectRef"]["resource"], record["objectRef"].get("subresource"))
        for record in map(json.loads, cluster.audit_log.read_text(encoding="utf-8").splitlines())
        if record["user"]["username"] == OPERATOR
        and record["verb"] not in {"get", "list", "watch"}
        and record.get("objectRef", {}).get("namespace") == namespace
    ]
    assert writes == [
        ("patch", "sandboxruns", "status"),
        ("patch", "sandboxruns", "status"),
        ("patch", "sandboxruns", None),
    ]
