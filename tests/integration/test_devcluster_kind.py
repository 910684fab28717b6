"""What we pass to kind, held against the real kind program; Docker is not needed for that."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from capibara_devcluster import files, kind
from capibara_devcluster.layout import Layout
from capibara_devcluster.tools import provide

_TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def kind_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provide.provide(["kind"], tmp_path_factory.mktemp("tools")) / "kind"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, "demo")
    files.write(made.root / "kind.yaml", kind.config())
    return made


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """An environment whose docker notes how it is called, lists nothing, and refuses to run."""
    folder = tmp_path / "path"
    program = folder / "docker"
    # kind decides by these two answers that Docker is there and has no cluster yet.
    files.write(
        program,
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        'case "$1" in\n'
        "  -v) echo 'Docker version 28.0.0' ;;\n"
        "  ps) ;;\n"
        '  info) echo \'{"CgroupVersion": "2"}\' ;;\n'
        "  *) exit 125 ;;\n"
        "esac\n",
        mode=0o755,
    )
    return {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "KIND_EXPERIMENTAL_PROVIDER": "docker"}


def _kind(program: Path, *args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
        env=env,
    )


def test_create_gets_as_far_as_docker(
    kind_program: Path, layout: Layout, docker: dict[str, str], tmp_path: Path
) -> None:
    done = _kind(kind_program, *kind.create_arguments(layout, wait_seconds=60), env=docker)
    assert done.returncode != 0
    assert "unknown flag" not in done.stderr
    assert "could not decode" not in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "kindest/node:v1." in calls, done.stderr


def test_unknown_field_in_the_configuration_would_be_seen(
    kind_program: Path, layout: Layout, docker: dict[str, str]
) -> None:
    files.write(layout.root / "kind.yaml", kind.config() + "unknownField: 1\n")
    done = _kind(kind_program, *kind.create_arguments(layout, wait_seconds=60), env=docker)
    assert "unknownField" in done.stderr


def test_delete_of_no_cluster_is_harmless(
    kind_program: Path, layout: Layout, docker: dict[str, str]
) -> None:
    done = _kind(kind_program, *kind.delete_arguments(layout), env=docker)
    assert done.returncode == 0, done.stderr


def test_load_looks_for_the_nodes_of_our_cluster(
    kind_program: Path, layout: Layout, docker: dict[str, str], tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    archive.touch()
    done = _kind(kind_program, *kind.load_arguments(layout, archive), env=docker)
    assert 'no nodes found for cluster "capibara-demo"' in done.stderr
