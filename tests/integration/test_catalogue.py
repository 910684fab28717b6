"""The real operator tests real providers and says which templates can be used."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.sandboxd_process import SandboxdProcess

GROUP = "capibara6.dev"


class Catalogue:
    """Providers and templates of one test."""

    def __init__(self, cluster: Any, namespace: str, operator_namespace: str) -> None:
        self.cluster, self.namespace, self.system = cluster, namespace, operator_namespace
        self.providers: list[str] = []

    def apply(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> None:
        obj = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": kind,
            "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
            "spec": spec,
        }
        self.cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(obj))

    def put_provider(self, name: str, url: str, **spec: Any) -> str:
        provider = f"{self.namespace}-{name}"
        ref = {"credentialsSecretRef": {"name": name}, "namespaceSelector": {}}
        self.apply("SandboxProvider", provider, {"apiURL": url, "sandboxURL": url} | ref | spec)
        self.providers.append(provider)
        return f"sbxp/{provider}"

    def put_key(self, name: str, key: str) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.system},
            "stringData": {"apiKey": key},
        }
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(secret))

    def get(self, target: str, namespace: str = "") -> dict[str, Any]:
        where = (f"--namespace={namespace}",) if namespace else ()
        found: dict[str, Any] = json.loads(
            self.cluster.kubectl("get", target, *where, "-o", "json").stdout
        )
        return found

    def wait(self, target: str, condition: str, namespace: str = "", seconds: int = 30) -> Any:
        where = (f"--namespace={namespace}",) if namespace else ()
        wanted = f"--for=condition={condition}"
        self.cluster.kubectl("wait", target, wanted, f"--timeout={seconds}s", *where)
        conditions = self.get(target, namespace)["status"]["conditions"]
        return next(found for found in conditions if found["type"] == "Ready")


@pytest.fixture
def catalogue(crds_installed: Any, namespace: str, operator_namespace: str) -> Iterator[Catalogue]:
    made = Catalogue(crds_installed, namespace, operator_namespace)
    yield made
    for name in made.providers:
        crds_installed.kubectl("delete", "sandboxprovider", name, "--wait=false")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_providers_are_tested(
    catalogue: Catalogue, operator_process: Any, sandboxd: SandboxdProcess
) -> None:
    catalogue.put_key("good", sandboxd.api_key)
    catalogue.put_key("bad", "e2b_wrongwrongwrong")
    good = catalogue.put_provider("good", sandboxd.url)
    bad = catalogue.put_provider("bad", sandboxd.url)
    keyless = catalogue.put_provider("keyless", sandboxd.url)
    catalogue.put_key("silent", sandboxd.api_key)
    silent = catalogue.put_provider("silent", f"http://127.0.0.1:{free_port()}")
    operator = operator_process().start()

    assert catalogue.wait(good, "Ready")["reason"] == "Connected"
    denied = catalogue.wait(bad, "Stalled")
    assert denied["reason"] == "AuthenticationFailed"
    assert "wrongwrong" not in json.dumps(catalogue.get(bad)) + operator.log()
    missing = catalogue.wait(keyless, "Stalled")
    assert missing["reason"] == "AuthenticationFailed"
    assert f"Secret {catalogue.system}/keyless does not exist" in missing["message"]
    assert catalogue.wait(silent, "Stalled")["reason"] == "ProviderUnreachable"

    catalogue.put_key("bad", sandboxd.api_key)
    catalogue.put_key("keyless", sandboxd.api_key)
    assert catalogue.wait(bad, "Ready")["reason"] == "Connected"
    catalogue.wait(keyless, "Ready")
    warned = events_of(catalogue, bad.partition("/")[2])
    assert {("Warning", "AuthenticationFailed"), ("Normal", "Connected")} <= warned


def events_of(catalogue: Catalogue, name: str) -> set[tuple[str, str]]:
    deadline = time.monotonic() + 15
    found: set[tuple[str, str]] = set()
    while time.monotonic() < deadline and len(found) < 2:
        listed = catalogue.cluster.kubectl(
            *("get", "events.events.k8s.io", "--all-namespaces", "-o", "json")
        )
        found = {
            (event["type"], event["reason"])
            for event in json.loads(listed.stdout)["items"]
            if event["regarding"].get("name") == name
        }
        time.sleep(0.3)
    return found


def test_a_test_with_the_same_outcome_writes_nothing(
    catalogue: Catalogue, operator_process: Any, sandboxd: SandboxdProcess
) -> None:
    catalogue.put_key("good", sandboxd.api_key)
    target = catalogue.put_provider("good", sandboxd.url)
    operator = operator_process().start()
    catalogue.wait(target, "Ready")

    def tests() -> float:
        label = f'provider="{target.partition("/")[2]}",result="Connected"'
        page = operator.get("/metrics")[1]
        lines = [line for line in page.splitlines() if "connection_tests_total{" in line]
        return sum(float(line.split()[-1]) for line in lines if label in line)

    before = tests()
    catalogue.cluster.kubectl("annotate", target, "note=changed")
    version = catalogue.get(target)["metadata"]["resourceVersion"]
    deadline = time.monotonic() + 20
    while tests() <= before:
        assert time.monotonic() < deadline, "the provider was not tested again"
        time.sleep(0.1)
    time.sleep(0.5)
    assert catalogue.get(target)["metadata"]["resourceVersion"] == version


def test_templates_say_whether_they_can_be_used(
    catalogue: Catalogue, operator_process: Any, sandboxd: SandboxdProcess
) -> None:
    catalogue.put_key("good", sandboxd.api_key)
    catalogue.put_provider("good", sandboxd.url, allowedTemplateIDs=["quick-script"])
    catalogue.apply("SandboxTemplate", "shared", {"templateID": "default"}, catalogue.system)
    mine = {"templateID": "quick-script"}
    catalogue.apply("SandboxTemplate", "allowed", mine, catalogue.namespace)
    other = {"templateID": "machine-learning"}
    catalogue.apply("SandboxTemplate", "other", other, catalogue.namespace)
    operator_process().start()

    assert catalogue.wait("sbxt/shared", "Ready", catalogue.system)["reason"] == "Available"
    catalogue.wait("sbxt/allowed", "Ready", catalogue.namespace)
    refused = catalogue.wait("sbxt/other", "Stalled", catalogue.namespace)
    assert refused["reason"] == "TemplateNotAllowed"
    assert "'machine-learning'" in refused["message"]
    status = catalogue.get("sbxt/shared", catalogue.system)["status"]
    assert (status["templateID"], len(status["specHash"])) == ("default", 16)
