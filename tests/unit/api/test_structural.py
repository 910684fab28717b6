"""The generator of structural schemas, and what the models share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from capibara_operator.api.common import Quantity, SandboxResources, quantity_value, to_wire_name
from capibara_operator.api.crd import NotStructuralError, structural
from capibara_operator.api.run import SandboxRunSpec, SandboxRunStatus


class Inner(BaseModel):
    """Described inside."""

    name: str


class Sample(BaseModel):
    outer: Inner | None = Field(default=None, description="Described outside.")
    same: Inner
    fixed: Literal["a"] = "a"
    labels: Annotated[dict[str, Inner], Field(max_length=3)] = Field(default_factory=dict)
    many: tuple[Inner, ...] = ()
    amount: Quantity | None = None


class Recursive(BaseModel):
    child: Recursive | None = None


class Union(BaseModel):
    either: int | Inner


class Free(BaseModel):
    anything: object = None


class Exclusive(BaseModel):
    count: int = Field(gt=3)


def test_references_are_put_in_place() -> None:
    found = structural(Sample.model_json_schema())["properties"]
    assert found["same"]["properties"]["name"] == {"type": "string"}
    assert found["same"]["description"] == "Described inside."
    assert found["outer"]["description"] == "Described outside."
    assert "default" not in found["outer"]


def test_what_openapi_does_not_know_is_translated() -> None:
    found = structural(Sample.model_json_schema())["properties"]
    assert found["fixed"] == {"enum": ["a"], "type": "string", "default": "a"}
    assert found["labels"]["additionalProperties"]["required"] == ["name"]
    assert found["labels"]["maxProperties"] == 3
    assert found["many"]["items"]["type"] == "object"
    assert found["amount"]["x-kubernetes-int-or-string"] is True
    assert "type" not in found["amount"]


@pytest.mark.parametrize("model", [Recursive, Union, Free, Exclusive])
def test_what_a_definition_cannot_express_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(NotStructuralError):
        structural(model.model_json_schema())


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("sandbox_id", "sandboxID"),
        ("allowed_template_ids", "allowedTemplateIDs"),
        ("api_url", "apiURL"),
        ("url", "url"),
        ("ttl_seconds_after_finished", "ttlSecondsAfterFinished"),
        ("sha256", "sha256"),
    ],
)
def test_names_on_the_wire(name: str, want: str) -> None:
    assert to_wire_name(name) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2", Decimal(2)),
        ("500m", Decimal("0.5")),
        ("1Gi", Decimal(1024**3)),
        ("1.5G", Decimal(1_500_000_000)),
        ("100k", Decimal(100_000)),
        ("1e3", Decimal(1000)),
        (".5", Decimal("0.5")),
        ("1.", Decimal(1)),
        ("1E", Decimal(10**18)),
    ],
)
def test_quantities(text: str, want: Decimal) -> None:
    assert quantity_value(text) == want
    assert SandboxResources(memory=text).memory == text


@pytest.mark.parametrize("text", ["", "1 Gi", "1GiB", "-1", "x", ".", "1..2", "1mi", "NaN"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity_value(text)
    with pytest.raises(ValidationError):
        SandboxResources(memory=text)


def test_integers_are_quantities_too() -> None:
    assert SandboxResources.model_validate({"cpu": 2}).cpu == "2"
    with pytest.raises(ValidationError):
        SandboxResources.model_validate({"cpu": True})


def test_a_spec_refuses_and_a_status_ignores_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        SandboxRunSpec.model_validate({"code": "x", "backoffLimit": 1})
    status = SandboxRunStatus.model_validate({"phase": "Running", "usage": {"peakMemory": 1}})
    assert status.phase == "Running"


def test_times_are_written_as_kubernetes_writes_them() -> None:
    status = SandboxRunStatus.model_validate({"startTime": "2026-01-02T03:04:05.678+02:00"})
    assert status.dump()["startTime"] == "2026-01-02T01:04:05Z"
