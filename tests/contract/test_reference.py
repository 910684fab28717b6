"""The committed reference is the one that the models give."""

from pathlib import Path

from capibara_operator.api import reference
from capibara_operator.api.kinds import KINDS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference.render(), "run `make crds`"


def test_every_field_of_every_kind_is_explained() -> None:
    text = reference.render()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    bare = [row for row in rows if row.split(" | ")[2].strip(" |") == ""]
    assert not bare
    assert all(f"## {kind.kind}\n" in text for kind in KINDS)
