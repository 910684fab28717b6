"""The generated CRDs and the shipped objects agree with the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_operator.api import crd
from capibara_operator.api.kinds import KINDS, Kind

REPOSITORY = Path(__file__).parents[2]
BY_KIND = {kind.kind: kind for kind in KINDS}


def shipped() -> list[Any]:
    paths = sorted((REPOSITORY / "manifests").rglob("*.yaml"))
    paths += sorted((REPOSITORY / "tests" / "data").rglob("*.yaml"))
    return [
        pytest.param(obj, id=f"{path.stem}-{obj['kind']}-{obj['metadata']['name']}")
        for path in paths
        for obj in yaml.safe_load_all(path.read_text())
        if obj and str(obj.get("apiVersion", "")).startswith("capibara6.dev/")
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_files_are_what_the_models_give(kind: Kind) -> None:
    path = REPOSITORY / "crds" / f"capibara6.dev_{kind.plural}.yaml"
    assert path.read_text() == crd.render(kind), "run `make crds`"


def test_there_are_no_other_files() -> None:
    names = {path.name for path in (REPOSITORY / "crds").iterdir()}
    assert names == {f"capibara6.dev_{kind.plural}.yaml" for kind in KINDS}


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    crd.write(tmp_path / "a")
    crd.write(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_a_definition_fits_into_the_annotation_of_client_side_apply(kind: Kind) -> None:
    assert len(crd.render(kind)) < 200_000


@pytest.mark.parametrize("obj", shipped())
def test_shipped_objects_are_valid(obj: dict[str, Any]) -> None:
    kind = BY_KIND[obj["kind"]]
    spec = kind.spec.model_validate(obj["spec"])
    again = kind.spec.model_validate(
        spec.model_dump(by_alias=True, exclude_unset=True, mode="json")
    )
    assert again == spec
