"""Image archives that we write and read."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from capibara_devcluster import archives
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.native.archive import write_image

_NAME = "localhost/probe:1"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    target = tmp_path / "probe.tar"
    write_image(target, reference=_NAME, programs={"/probe": program}, entrypoint=["/probe"])
    return target


def test_every_blob_has_the_digest_of_its_name(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        blobs = [name for name in opened.getnames() if name.startswith("blobs/sha256/")]
        assert len(blobs) == 3
        for name in blobs:
            content = opened.extractfile(name)
            assert content is not None
            assert hashlib.sha256(content.read()).hexdigest() == Path(name).name


def test_same_input_gives_the_same_archive(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    write_image(
        again,
        reference=_NAME,
        programs={"/probe": tmp_path / "program"},
        entrypoint=["/probe"],
    )
    assert again.read_bytes() == archive.read_bytes()


def test_names_and_digests_are_read(archive: Path) -> None:
    digests = archives.named_digests(archive)
    assert list(digests) == [_NAME]
    assert digests[_NAME].startswith("sha256:")


def test_layout_folder_is_packed(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    with tarfile.open(archive) as opened:
        opened.extractall(folder)
    packed = archives.as_file(folder, tmp_path)
    assert archives.named_digests(packed) == archives.named_digests(archive)


def test_docker_archive_without_index_has_no_digests(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"RepoTags": ["a:1"]}]))
    target = tmp_path / "docker.tar"
    with tarfile.open(target, "w") as opened:
        opened.add(manifest, "manifest.json")
    assert archives.named_digests(target) == {}


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_archive_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(content)
    with pytest.raises(DevclusterError, match=r"broken\.tar is no image archive"):
        archives.named_digests(broken)


def test_folder_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match="neither an image archive nor an OCI layout"):
        archives.as_file(tmp_path, tmp_path)
