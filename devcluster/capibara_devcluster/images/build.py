"""The project's images: which there are, their Debian base, and their archives."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capibara_devcluster import debian
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.images.buildah import Buildah, host_architecture
from capibara_devcluster.images.docker import Docker
from capibara_devcluster.kind import docker_answers

TARGETS = ("operator", "sandboxd", "backend", "integrated-server", "frontend")
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
HOST_PROGRAMS = ("buildah", "mmdebstrap")
_MMDEBSTRAP_TIMEOUT_SECONDS = 900

Progress = Callable[[str], None]


class Engine(Protocol):
    """What builds images."""

    def build(self, context: Path, *, target: str, name: str) -> str:
        """Build one target of ``context``/Dockerfile; return the image's id (hexadecimal)."""
        ...

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an archive, complete or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its full name, its id (hexadecimal) and an OCI archive of it."""

    target: str
    name: str
    id: str
    archive: Path


def cache_folder() -> Path:
    """Where images are kept between builds."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "capibara" / "images"


def image_name(target: str) -> str:
    """The name under which a target runs in a local cluster; it can be pulled from nowhere."""
    return f"localhost/capibara6/{target}:dev"


def base_name() -> str:
    """The name of the base image, with a digest of all that it is made from."""
    recipe = f"{SUITE} {host_architecture()} {' '.join(BASE_PACKAGES)}"
    return f"localhost/capibara-python:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bootstrap(archive: Path, log: Path) -> None:
    """Write a minimal Debian with Python into a tar archive (mmdebstrap)."""
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
    command += [SUITE, str(archive)]
    if mirror := os.environ.get("CAPIBARA_DEBIAN_MIRROR"):
        command.append(mirror)
    # The same packages give the same bytes, so the layers above stay cached.
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=_MMDEBSTRAP_TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise DevclusterError(
            "mmdebstrap could not make the base image",
            log=log,
            hint="check that Debian's packages answer; CAPIBARA_DEBIAN_MIRROR names a mirror",
        )


def _ensure_base(buildah: Buildah, progress: Progress) -> None:
    if buildah.image_id(buildah.base) is None:
        progress("base image from Debian packages (once, about a minute)")
        archive = buildah.folder / "base.tar"
        try:
            _bootstrap(archive, buildah.log)
            buildah.import_rootfs(archive, buildah.base)
        finally:
            archive.unlink(missing_ok=True)


def _engine(folder: Path, log: Path, progress: Progress) -> Engine:
    if docker_answers():
        return Docker(log)
    debian.ensure(HOST_PROGRAMS)
    buildah = Buildah(folder, log, base_name())
    _ensure_base(buildah, progress)
    return buildah


def build(
    context: Path, targets: Sequence[str] = TARGETS, *, progress: Progress = lambda _: None
) -> list[Image]:
    """Build ``targets`` of ``context``/Dockerfile and archive each; unchanged ones cost nothing.

    Raises:
        DevclusterError: with the failing command and the end of its log.
    """
    folder = cache_folder()
    with _locked(folder):
        log = folder / "build.log"
        log.write_text("")
        engine = _engine(folder, log, progress)
        images = []
        for number, target in enumerate(targets, 1):
            progress(f"image {number}/{len(targets)}: {target}")
            name = image_name(target)
            image = engine.build(context, target=target, name=name)
            archive = folder / f"{target}-{image[:12]}.tar"
            if not archive.exists():
                engine.save(name, archive)
                _remove_old_archives(folder, target, keep=archive)
            images.append(Image(target, name, image, archive))
        return images


def _remove_old_archives(folder: Path, target: str, *, keep: Path) -> None:
    for archive in folder.glob(f"{target}-{'[0-9a-f]' * 12}.tar"):
        if archive != keep:
            archive.unlink()
