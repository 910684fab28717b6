"""The kinds behave on a real API server as users and their tools expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
EVERYTHING = REPOSITORY / "tests" / "data" / "crds" / "everything.yaml"
PLURALS = ["capibaraservices", "sandboxproviders", "sandboxruns", "sandboxtemplates"]


def load(path: Path) -> list[dict[str, Any]]:
    return [obj for obj in yaml.safe_load_all(path.read_text()) if obj]


def our_samples() -> list[Any]:
    paths = sorted((REPOSITORY / "manifests").rglob("*.yaml"))
    return [
        pytest.param(obj, id=f"{path.stem}-{obj['kind']}-{obj['metadata']['name']}")
        for path in [*paths, EVERYTHING]
        for obj in load(path)
        if obj.get("apiVersion", "").startswith("capibara6.dev/")
    ]


def apply(cluster: Any, namespace: str, obj: dict[str, Any], **spec: Any) -> dict[str, Any]:
    changed = obj | {"spec": obj["spec"] | spec}
    changed["metadata"] = {
        name: value for name, value in obj["metadata"].items() if name != "namespace"
    }
    done = cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "-o", "json"),
        *(f"--namespace={namespace}", "-f", "-"),
        input=json.dumps(changed),
    )
    applied: dict[str, Any] = json.loads(done.stdout)
    return applied


def run(name: str = "sample", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "SandboxRun",
        "metadata": {"name": name},
        "spec": {"code": "print(1)"} | spec,
    }


def service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "CapibaraService",
        "metadata": {"name": "backend"},
        "spec": {"image": "a", "ports": [{"name": "http", "port": 80}]} | spec,
    }


def set_status(cluster: Any, namespace: str, target: str, status: dict[str, Any]) -> None:
    cluster.kubectl(
        *("patch", target, f"--namespace={namespace}", "--subresource=status"),
        *("--type=merge", "--patch", json.dumps({"status": status})),
    )


@pytest.mark.parametrize("plural", PLURALS)
def test_the_definition_is_accepted_and_structural(crds_installed: Any, plural: str) -> None:
    done = crds_installed.kubectl("get", "crd", f"{plural}.capibara6.dev", "-o", "json")
    conditions = {
        found["type"]: found["status"] for found in json.loads(done.stdout)["status"]["conditions"]
    }
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("obj", our_samples())
def test_samples_are_accepted(crds_installed: Any, obj: dict[str, Any]) -> None:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "namespace"}
    crds_installed.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "--namespace=default"),
        *("-f", "-"),
        input=json.dumps(obj | {"metadata": metadata}),
    )


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (run(code=""), "spec.code"),
        (run(code="x" * 131_073), "spec.code"),
        (run(language="cobol"), 'supported values: "python", "bash"'),
        (run(taskType="data"), "DataAnalysis"),
        (run(activeDeadlineSeconds=0), "greater than or equal to 1"),
        (run(templateRef={"name": "Not A Name"}), "spec.templateRef.name"),
        (run(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "Duplicate value"),
        (run(files=[{"path": "a/", "content": ""}]), "spec.files[0].path"),
        (service(ports=[]), "at least 1 items"),
        (service(ports=[{"name": "http", "port": 0}]), "greater than or equal to 1"),
        (service(resources={"limits": {"memory": "1 GB"}}), "spec.resources.limits.memory"),
        (service(resources={"limits": {"memory": "-1Gi"}}), "spec.resources.limits.memory"),
        (service(replicas=-1), "greater than or equal to 0"),
        (service(endpoints=[{"name": "e", "path": "x"}]), "spec.endpoints[0].path"),
        (service(endpoints=[{"name": "e", "port": 70000}]), "less than or equal to 65535"),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    crds_installed: Any, obj: dict[str, Any], message: str
) -> None:
    done = crds_installed.kubectl(
        *("create", "--dry-run=server", "--namespace=default", "-f", "-"),
        input=json.dumps(obj),
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("how", [("create", "--validate=strict"), ("apply", "--server-side")])
def test_fields_of_later_versions_are_refused(
    crds_installed: Any, namespace: str, how: tuple[str, ...]
) -> None:
    done = crds_installed.kubectl(
        *(*how, f"--namespace={namespace}", "-f", "-"),
        input=json.dumps(run(backoffLimit=3)),
        check=False,
    )
    assert done.returncode != 0
    assert "backoffLimit" in done.stderr


def test_a_service_needs_an_image_and_a_port(crds_installed: Any, namespace: str) -> None:
    assert apply(crds_installed, namespace, service())["spec"] == {
        "image": "a",
        "ports": [{"name": "http", "port": 80}],
        "replicas": 1,
        "suspend": False,
        "progressDeadlineSeconds": 600,
    }


def test_a_run_needs_code(crds_installed: Any, namespace: str) -> None:
    applied = apply(crds_installed, namespace, run())
    assert applied["spec"] == {"code": "print(1)", "language": "python", "cancel": False}
    assert applied["status"] == {"observedGeneration": -1}


def test_the_defaults_of_lists_and_limits(crds_installed: Any, namespace: str) -> None:
    endpoints = apply(crds_installed, namespace, service(endpoints=[{"name": "e"}]))["spec"][
        "endpoints"
    ]
    assert endpoints == [
        {
            "name": "e",
            "path": "/",
            "method": "GET",
            "periodSeconds": 10,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
            "required": True,
        }
    ]
    provider = {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "SandboxProvider",
        "metadata": {"name": namespace},
        "spec": {
            "credentialsSecretRef": {"name": "e2b"},
            "namespaceSelector": {},
            "limits": {"createsPerSecond": 1},
        },
    }
    applied = apply(crds_installed, namespace, provider)["spec"]
    crds_installed.kubectl("delete", "sandboxprovider", namespace, "--wait=false")
    assert applied == {
        "credentialsSecretRef": {"name": "e2b", "key": "apiKey"},
        "namespaceSelector": {},
        "limits": {
            "maxConcurrentSandboxes": 20,
            "createsPerSecond": 1,
            "maxLifetimeSeconds": 3600,
        },
        "sweep": {"intervalSeconds": 60, "graceSeconds": 60},
    }


def test_cancel_and_ttl_may_change(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, run(args=["a"]))
    changed = apply(
        crds_installed, namespace, run(args=["a"]), cancel=True, ttlSecondsAfterFinished=60
    )
    assert changed["metadata"]["generation"] == 2
    assert changed["spec"]["cancel"] is True


def test_status_is_a_subresource_with_bounds(crds_installed: Any, namespace: str) -> None:
    applied = apply(crds_installed, namespace, run() | {"status": {"phase": "Running"}})
    assert "phase" not in applied["status"]
    too_long = {"result": {"stdout": {"tail": "x" * 2049}}}
    done = crds_installed.kubectl(
        *("patch", "sbr/sample", f"--namespace={namespace}", "--subresource=status"),
        *("--type=merge", "--patch", json.dumps({"status": too_long})),
        check=False,
    )
    assert done.returncode != 0
    assert "status.result.stdout.tail" in done.stderr


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("sandboxrun.spec.files", ["path", "-required-", "relative to the user's home"]),
        ("sbr.status.conditions", ["lastTransitionTime", "When the status last changed"]),
        ("capibaraservice.spec.endpoints.expect", ["bodyContains", "Status codes that are good"]),
        ("sandboxprovider.spec.limits", ["createsPerSecond", "Sandboxes created in a second"]),
        ("sandboxtemplates.spec.detect", ["imports", "stands for anything within a line"]),
    ],
)
def test_kubectl_explain(crds_installed: Any, path: str, texts: list[str]) -> None:
    explained = crds_installed.kubectl(
        "explain", path, "--api-version=capibara6.dev/v1alpha1"
    ).stdout
    words = " ".join(explained.split())
    for text in texts:
        assert text in words


def test_every_field_is_described(crds_installed: Any) -> None:
    def bare(node: dict[str, Any], path: str) -> list[str]:
        found = [
            f"{path}.{name}"
            for name, child in node.get("properties", {}).items()
            if not child.get("description") and f"{path}.{name}" != ".metadata"
        ]
        for name, child in node.get("properties", {}).items():
            found += bare(child, f"{path}.{name}")
        return found + (bare(node["items"], f"{path}[]") if "items" in node else [])

    for plural in PLURALS:
        done = crds_installed.kubectl("get", "crd", f"{plural}.capibara6.dev", "-o", "json")
        for version in json.loads(done.stdout)["spec"]["versions"]:
            assert bare(version["schema"]["openAPIV3Schema"], "") == []


def test_the_columns_of_a_run(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, run("sales-plot"))
    set_status(
        crds_installed,
        namespace,
        "sbr/sales-plot",
        {
            "phase": "Succeeded",
            "detection": {"taskType": "Visualization", "confidence": 70},
            "template": {"name": "visualization"},
            "exitCode": 0,
            "duration": "1.9s",
            "sandboxID": "sb1",
            "provider": "sandboxd",
            "reason": "Completed",
            "message": "Done.",
        },
    )
    lines = crds_installed.kubectl("get", "sbr", f"--namespace={namespace}").stdout.splitlines()
    assert lines[0].split() == ["NAME", "PHASE", "TASK", "TEMPLATE", "EXIT", "DURATION", "AGE"]
    assert lines[1].split()[:-1] == [
        *("sales-plot", "Succeeded", "Visualization", "visualization", "0", "1.9s")
    ]
    wide = crds_installed.kubectl("get", "sbr", f"--namespace={namespace}", "-o", "wide").stdout
    assert wide.splitlines()[0].split()[-4:] == ["SANDBOX", "PROVIDER", "REASON", "MESSAGE"]
    assert wide.splitlines()[1].split()[-4:] == ["sb1", "sandboxd", "Completed", "Done."]


def test_the_columns_of_a_service(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, service())
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "EndpointsDegraded",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    status = {"conditions": [condition], "endpointSummary": "1/2", "replicaSummary": "1/1"}
    set_status(crds_installed, namespace, "csvc/backend", status)
    lines = crds_installed.kubectl("get", "csvc", f"--namespace={namespace}").stdout.splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "ENDPOINTS", "REPLICAS", "AGE"]
    assert lines[1].split()[:-1] == ["backend", "False", "EndpointsDegraded", "1/2", "1/1"]
    assert "backend" in crds_installed.kubectl("get", "all", f"--namespace={namespace}").stdout
    assert "backend" in crds_installed.kubectl("get", "capibara", f"--namespace={namespace}").stdout


def test_a_run_is_not_part_of_all(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, run())
    assert (
        "sandboxrun" not in crds_installed.kubectl("get", "all", f"--namespace={namespace}").stdout
    )


def test_scale(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, service())
    set_status(crds_installed, namespace, "csvc/backend", {"replicas": 1, "selector": "a=b"})
    crds_installed.kubectl("scale", "csvc/backend", "--replicas=3", f"--namespace={namespace}")
    path = f"/apis/capibara6.dev/v1alpha1/namespaces/{namespace}/capibaraservices/backend/scale"
    scale = json.loads(crds_installed.kubectl("get", "--raw", path).stdout)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "a=b"}


def test_runs_are_selected_by_phase_and_template(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, run("one", templateRef={"name": "default"}))
    apply(crds_installed, namespace, run("two"))
    set_status(crds_installed, namespace, "sbr/two", {"phase": "Running", "sandboxID": "sb2"})

    def names(selector: str) -> list[str]:
        done = crds_installed.kubectl(
            *("get", "sbr", f"--namespace={namespace}", f"--field-selector={selector}"),
            *("-o", "name"),
        )
        return [str(line).rpartition("/")[2] for line in done.stdout.split()]

    assert names("status.phase=Running") == ["two"]
    assert names("status.sandboxID=sb2") == ["two"]
    assert names("spec.templateRef.name=default") == ["one"]


def test_kubectl_wait_sees_the_conditions(crds_installed: Any, namespace: str) -> None:
    apply(crds_installed, namespace, run())
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Completed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    set_status(
        crds_installed,
        namespace,
        "sbr/sample",
        {"conditions": [condition], "observedGeneration": 1},
    )
    crds_installed.kubectl(
        *("wait", "sbr/sample", "--for=condition=Ready", f"--namespace={namespace}"),
        "--timeout=10s",
    )
