"""The image builder's decisions; its builds are proven by the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.images import build as images
from capibara_devcluster.images.docker import Docker
from capibara_devcluster.images.trust import build_volumes


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that notes how it is called; returns the file of its notes."""
    folder = tmp_path / "path"
    folder.mkdir()
    notes = tmp_path / "notes"
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\nprintf "%s " "$@" >> {notes}; echo >> {notes}\n'
        'case "$1" in\n'
        "  version) echo 28.0 ;;\n"
        '  image) echo "sha256:0123456789abcdef0123" ;;\n'
        '  save) : > "$3" ;;\n'
        '  build) [ "$3" != broken ] || { echo "no such target" >&2; exit 1; } ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return notes


def test_a_docker_engine_is_used_where_one_answers(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (found,) = images.build(tmp_path, ["backend"])
    assert found.name == "localhost/capibara6/backend:dev"
    assert found.id == "0123456789abcdef0123"
    assert found.archive.name == "backend-0123456789ab.tar"
    assert found.archive.exists()
    calls = docker.read_text().splitlines()
    assert any(call.startswith("build --target backend --tag localhost/") for call in calls)
    images.build(tmp_path, ["backend"])
    saves = [call for call in docker.read_text().splitlines() if call.startswith("save")]
    assert len(saves) == 1, "an unchanged image is not saved again"


def test_a_new_image_replaces_the_archive_of_the_old_one(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = images.cache_folder()
    folder.mkdir(parents=True)
    old = folder / "backend-ffffffffffff.tar"
    other = folder / "frontend-ffffffffffff.tar"
    old.touch()
    other.touch()
    images.build(tmp_path, ["backend"])
    assert not old.exists()
    assert other.exists()


def test_a_failing_build_says_where_its_log_is(docker: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(DevclusterError, match="docker build failed") as caught:
        Docker(log).build(tmp_path, target="broken", name="x")
    assert "no such target" in str(caught.value)
    assert str(log) in str(caught.value)


def test_a_build_trusts_what_its_host_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    monkeypatch.setenv("PIP_CERT", str(bundle))
    volumes = build_volumes(tmp_path)
    assert f"{bundle}:/etc/host-ca.pem:ro" in volumes
    assert "cert = /etc/host-ca.pem" in (tmp_path / "pip.conf").read_text()


def test_the_base_image_is_named_after_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = images.base_name()
    monkeypatch.setattr(images, "BASE_PACKAGES", (*images.BASE_PACKAGES, "curl"))
    assert images.base_name() != before


def test_every_target_is_one_of_the_dockerfile() -> None:
    dockerfile = (Path(__file__).parents[3] / "Dockerfile").read_text()
    assert all(f" AS {target}\n" in dockerfile for target in images.TARGETS), json.dumps(
        images.TARGETS
    )
