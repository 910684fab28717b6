"""Copies what the chart ships from its one source: the CRDs and the shipped templates.

Helm reads nothing outside of a chart's folder, so the chart needs copies.
Usage: ``python helm/sync_chart.py [--check]``; with ``--check`` it only says what differs.
"""  # noqa: INP001  # a program, not a part of a package

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FILES: Final = ROOT / "helm" / "capibara-operator" / "files"


def wanted() -> dict[Path, bytes]:
    """Path and content of every file that the chart must have under ``files/``."""
    templates = (ROOT / "manifests" / "templates").glob("*.yaml")
    return {
        **{FILES / "crds" / path.name: path.read_bytes() for path in ROOT.glob("crds/*.yaml")},
        **{
            FILES / "templates" / path.name: path.read_bytes()
            for path in templates
            if path.name != "kustomization.yaml"
        },
    }


def stale() -> list[Path]:
    """Files that are missing, differ from their source, or have none any more."""
    want = wanted()
    have = {path: path.read_bytes() for path in FILES.rglob("*") if path.is_file()}
    return sorted(path for path in want.keys() | have.keys() if want.get(path) != have.get(path))


def sync() -> None:
    """Make ``files/`` what it must be."""
    want = wanted()
    for path in stale():
        if path in want:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(want[path])
        else:
            path.unlink()


def main(arguments: list[str]) -> int:
    """Exit code 1 when something is stale and ``--check`` was given."""
    changed = stale()
    for path in changed:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    if arguments != ["--check"]:
        sync()
        return 0
    if changed:
        sys.stderr.write("these files of the chart are stale: run python helm/sync_chart.py\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
