"""Every CEL rule of the generated CRDs refuses something, and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).parents[2] / "crds"
API_VERSION = "capibara6.dev/v1alpha1"

BASES: dict[str, dict[str, Any]] = {
    "SandboxRun": {"code": "print(1)"},
    "SandboxTemplate": {"templateID": "base"},
    "SandboxProvider": {"credentialsSecretRef": {"name": "e2b"}},
    "CapibaraService": {"image": "a", "ports": [{"name": "http", "port": 80}]},
}
ONE_OF_ENV = "exactly one of `value` and `valueFrom` must be given"
ONE_OF_RUN_SOURCES = "exactly one of `secretKeyRef` and `configMapKeyRef` must be given"
SAFE_PATH = "must not contain the parts `.`, `..` or `.capibara`"
QUANTITY = "must be a quantity above 0, such as 500m, 2 or 1Gi"
CODE_XOR_COMMAND = "exactly one of `code` and `command` must be given"
IMMUTABLE = "may not change, but for `cancel` and `ttlSecondsAfterFinished`"
TOO_LARGE = (
    "`code` and the `content` of all `files` together must not exceed 131072 bytes;"
    " put more into a ConfigMap and refer to it"
)
REF = {"name": "a", "key": "b"}


@dataclass(frozen=True)
class Refused:
    """What the API server must refuse, by the rule with ``message`` at ``path``.

    ``spec`` goes over the kind's base, a None takes a field away; with ``update`` the object is
    created first and then changed.
    """

    kind: str
    path: str
    message: str
    spec: dict[str, Any] = field(default_factory=dict)
    update: dict[str, Any] | None = None
    name: str = "sample"

    def __str__(self) -> str:
        change = json.dumps(self.update or self.spec)[:40]
        return f"{self.kind}{self.path}: {self.message[:30]} {change}"


def probe(endpoint: str) -> str:
    return f"`{endpoint}` must name an endpoint of this service whose method is GET"


def _endpoints(**endpoint: Any) -> dict[str, Any]:
    return {"endpoints": [{"name": "e"} | endpoint]}


RUN, SERVICE = "SandboxRun", "CapibaraService"
REFUSED = [
    Refused(
        RUN,
        "",
        "the name of a SandboxRun must not be longer than 52 characters",
        name="r" * 53,
    ),
    Refused(RUN, ".spec", CODE_XOR_COMMAND, {"command": ["ls"]}),
    Refused(RUN, ".spec", CODE_XOR_COMMAND, {"code": None}),
    Refused(RUN, ".spec", TOO_LARGE, {"code": "é" * 65_537}),
    Refused(
        RUN,
        ".spec",
        TOO_LARGE,
        {
            "code": "x" * 65_536,
            "files": [
                {"path": "a", "content": "y" * 32_768},
                {"path": "b", "content": "y" * 32_769},
            ],
        },
    ),
    Refused(RUN, ".spec", IMMUTABLE, update={"code": "print(2)"}),
    Refused(RUN, ".spec", IMMUTABLE, update={"activeDeadlineSeconds": 5}),
    Refused(RUN, ".spec", IMMUTABLE, {"args": ["a"]}, update={"args": None}),
    Refused(RUN, ".spec", IMMUTABLE, update={"language": "bash"}),
    Refused(
        RUN,
        ".spec",
        IMMUTABLE,
        {"files": [{"path": "a", "content": "1"}]},
        update={"files": [{"path": "a", "content": "2"}]},
    ),
    Refused(
        RUN,
        ".spec",
        "`cancel` may not be taken back; create a new run instead",
        {"cancel": True},
        update={"cancel": False},
    ),
    Refused(RUN, ".spec.env[]", ONE_OF_ENV, {"env": [{"name": "A"}]}),
    Refused(
        RUN,
        ".spec.env[]",
        ONE_OF_ENV,
        {"env": [{"name": "A", "value": "", "valueFrom": {"secretKeyRef": REF}}]},
    ),
    Refused(
        RUN,
        ".spec.env[].valueFrom",
        ONE_OF_RUN_SOURCES,
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": REF, "configMapKeyRef": REF}}]},
    ),
    Refused(
        RUN,
        ".spec.files[]",
        "exactly one of `content`, `configMapKeyRef` and `secretKeyRef` must be given",
        {"files": [{"path": "a", "content": "", "configMapKeyRef": REF}]},
    ),
    Refused(RUN, ".spec.files[].path", SAFE_PATH, {"files": [{"path": "a/../b", "content": ""}]}),
    Refused(
        RUN,
        ".spec.files[].path",
        SAFE_PATH,
        {"files": [{"path": "/home/user/.capibara/job.json", "content": ""}]},
    ),
    Refused(RUN, ".spec.artifacts[].path", SAFE_PATH, {"artifacts": [{"path": "./a"}]}),
    Refused("SandboxTemplate", ".spec.resources.cpu", QUANTITY, {"resources": {"cpu": 0}}),
    Refused(
        "SandboxTemplate", ".spec.resources.memory", QUANTITY, {"resources": {"memory": "0Mi"}}
    ),
    Refused(
        "SandboxProvider",
        ".spec.namespaceSelector.matchExpressions[]",
        "`values` must be given with In and NotIn, and must not be given with Exists"
        " and DoesNotExist",
        {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
    ),
    *(
        Refused(
            SERVICE,
            "",
            "the name of a CapibaraService must start with a letter, consist of lowercase letters,"
            " digits and '-', and must not be longer than 52 characters",
            name=name,
        )
        for name in ("s" * 53, "1st", "a.b")
    ),
    Refused(
        SERVICE,
        "",
        "a CapibaraService must not depend on itself",
        {"dependsOn": [{"name": "sample"}]},
    ),
    Refused(
        SERVICE,
        ".spec",
        "each port number must be given once",
        {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
    ),
    Refused(
        SERVICE,
        ".spec",
        "the `port` of an endpoint must be a number or the name of a port of this service",
        _endpoints(port="grpc"),
    ),
    Refused(SERVICE, ".spec", probe("startupEndpoint"), {"startupEndpoint": "e"}),
    Refused(
        SERVICE,
        ".spec",
        probe("livenessEndpoint"),
        _endpoints(method="POST") | {"livenessEndpoint": "e"},
    ),
    Refused(
        SERVICE, ".spec", probe("readinessEndpoint"), _endpoints() | {"readinessEndpoint": "other"}
    ),
    Refused(SERVICE, ".spec.env[]", ONE_OF_ENV, {"env": [{"name": "A"}]}),
    Refused(
        SERVICE,
        ".spec.env[].valueFrom",
        "exactly one of `secretKeyRef`, `configMapKeyRef` and `fieldRef` must be given",
        {"env": [{"name": "A", "valueFrom": {}}]},
    ),
    Refused(
        SERVICE,
        ".spec.envFrom[]",
        "exactly one of `configMapRef` and `secretRef` must be given",
        {"envFrom": [{"prefix": "A_"}]},
    ),
    Refused(
        SERVICE,
        ".spec.resources",
        "`requests` must not exceed `limits`",
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1024Mi"}}},
    ),
    Refused(
        SERVICE,
        ".spec.resources.requests[*]",
        QUANTITY,
        {"resources": {"requests": {"cpu": "0m"}}},
    ),
    Refused(SERVICE, ".spec.resources.limits[*]", QUANTITY, {"resources": {"limits": {"cpu": 0}}}),
    Refused(
        SERVICE,
        ".spec.endpoints[]",
        "`bodyContains` may not be given when `method` is HEAD",
        _endpoints(method="HEAD", expect={"bodyContains": "ok"}),
    ),
    Refused(
        SERVICE,
        ".spec.endpoints[]",
        "`timeoutSeconds` must not exceed `periodSeconds`",
        _endpoints(periodSeconds=1, timeoutSeconds=2),
    ),
]


def rules_of(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every CEL rule of a schema as (path of its node, message)."""
    for found in node.get("x-kubernetes-validations", ()):
        yield path, found["message"]
    for name, child in node.get("properties", {}).items():
        yield from rules_of(child, f"{path}.{name}")
    if "items" in node:
        yield from rules_of(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from rules_of(node["additionalProperties"], f"{path}[*]")


def all_rules() -> set[tuple[str, str, str]]:
    found = set()
    for path in CRDS.glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())["spec"]
        for version in crd["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            found |= {(crd["names"]["kind"], *rule) for rule in rules_of(schema)}
    return found


def test_each_rule_has_a_sample_that_it_refuses() -> None:
    rules = all_rules()
    assert len(rules) >= 25
    assert {(sample.kind, sample.path, sample.message) for sample in REFUSED} == rules


def manifest(sample: Refused, *, updated: bool = False) -> str:
    spec = BASES[sample.kind] | sample.spec
    if updated:
        spec |= sample.update or {}
    return json.dumps(
        {
            "apiVersion": API_VERSION,
            "kind": sample.kind,
            "metadata": {"name": sample.name},
            "spec": {name: value for name, value in spec.items() if value is not None},
        }
    )


@pytest.mark.parametrize("sample", [sample for sample in REFUSED if sample.update is None], ids=str)
def test_the_api_server_refuses_it_and_says_why(crds_installed: Any, sample: Refused) -> None:
    done = crds_installed.kubectl(
        *("create", "--dry-run=server", "--namespace=default", "-f", "-"),
        input=manifest(sample),
        check=False,
    )
    assert done.returncode != 0, "accepted"
    assert sample.message in done.stderr


@pytest.mark.parametrize(
    "sample", [sample for sample in REFUSED if sample.update is not None], ids=str
)
def test_the_api_server_refuses_the_change_and_says_why(
    crds_installed: Any, namespace: str, sample: Refused
) -> None:
    apply = ("apply", "--server-side", f"--namespace={namespace}", "-f", "-")
    crds_installed.kubectl(*apply, input=manifest(sample))
    done = crds_installed.kubectl(*apply, input=manifest(sample, updated=True), check=False)
    assert done.returncode != 0, "accepted"
    assert sample.message in done.stderr


@pytest.mark.parametrize("kind", BASES)
def test_what_the_samples_start_from_is_accepted(crds_installed: Any, kind: str) -> None:
    crds_installed.kubectl(
        *("create", "--dry-run=server", "--namespace=default", "-f", "-"),
        input=manifest(Refused(kind, "", "")),
    )
