"""Image archives and OCI layout folders, read without any container tool."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any, Final

from capibara_devcluster.errors import DevclusterError

_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEX: Final = "index.json"
_HINT: Final = "make one: docker save -o FILE IMAGE, or buildah push IMAGE oci-archive:FILE:IMAGE"


def as_file(source: Path, scratch: Path) -> Path:
    """An archive file as it is; an OCI layout folder as an archive in `scratch`."""
    if source.is_file():
        return source
    if not (source / _INDEX).is_file():
        raise DevclusterError(
            f"{source} is neither an image archive nor an OCI layout folder",
            hint=_HINT,
        )
    target = scratch / f"{source.name}.tar"
    with tarfile.open(target, "w") as archive:
        for entry in sorted(source.iterdir()):
            archive.add(entry, arcname=entry.name)
    return target


def named_digests(archive: Path) -> dict[str, str]:
    """Names of the images in an archive -> digest; empty for archives without an OCI index."""
    names: dict[str, str] = {}
    for described in _index(archive).get("manifests", []):
        annotations = described.get("annotations") or {}
        for key in _NAMES:
            if key in annotations:
                names[annotations[key]] = described["digest"]
                break
    return names


def _index(archive: Path) -> dict[str, Any]:
    try:
        with tarfile.open(archive) as opened:
            member = opened.extractfile(_INDEX)
            index: dict[str, Any] = json.load(member) if member else {}
            return index
    except KeyError:
        return {}
    except (tarfile.TarError, ValueError) as error:
        raise DevclusterError(
            f"{archive} is no image archive: {error}",
            hint=_HINT,
        ) from error
