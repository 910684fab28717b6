"""The shipped services: valid, started in order, and asked at the endpoints that they serve."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_operator.api.service import CapibaraServiceSpec
from capibara_operator.core.services.dependencies import find_cycle
from capibara_operator.core.services.probing import checks

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "manifests" / "services"
BROKEN = ROOT / "manifests" / "samples" / "service-broken-endpoint.yaml"


def load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def spec(path: Path) -> CapibaraServiceSpec:
    return CapibaraServiceSpec.model_validate(load(path)["spec"])


ENDPOINTS = {
    "integrated-server": {(5001, "GET", "/health"), (5001, "GET", "/api/chat")},
    "backend": {
        (8000, "GET", "/health"),
        (8000, "GET", "/api/v1/query"),
        (8000, "GET", "/api/v1/e2b/execute"),
    },
    "frontend": {(8080, "GET", "/")},
}


def test_the_kustomization_has_each_service() -> None:
    listed = load(SERVICES / "kustomization.yaml")["resources"]
    assert listed == [f"{name}.yaml" for name in ENDPOINTS]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_service_is_asked_at_its_endpoints(name: str) -> None:
    path = SERVICES / f"{name}.yaml"
    assert load(path)["metadata"]["name"] == name
    found = spec(path)
    assert {(each.port, each.method, each.path) for each in checks(found)} == ENDPOINTS[name]
    assert found.image == f"localhost/capibara6/{name}:dev"
    assert found.image_pull_policy == "IfNotPresent"


def test_they_start_one_after_the_other() -> None:
    needs = {
        name: [each.name for each in spec(SERVICES / f"{name}.yaml").depends_on]
        for name in ENDPOINTS
    }
    assert needs == {
        "integrated-server": [],
        "backend": ["integrated-server"],
        "frontend": ["backend"],
    }
    assert not any(find_cycle(name, lambda each: needs[each]) for name in needs)


def test_the_broken_sample_has_one_endpoint_that_the_backend_lacks() -> None:
    asked = {each.path for each in checks(spec(BROKEN))}
    served = {path for _, _, path in ENDPOINTS["backend"]}
    assert asked - served == {"/api/v1/nothing"}
    assert asked & served == {"/health"}
