"""buildah with a store of its own in the cache, so that it never meets the host's images."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.images.trust import build_volumes

_STEP_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Buildah:
    """One store of images under ``folder``; ``log`` receives the output of all commands.

    ``base`` is the name of the image that builds start from.
    """

    folder: Path
    log: Path
    base: str

    def run(self, *arguments: str) -> str:
        """Run one buildah command and return its standard output, stripped.

        Raises:
            DevclusterError: it failed, is missing, or took more than half an hour.
        """
        store = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        # chroot: the usual isolation needs cgroup rights that a build machine may lack.
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
        try:
            done = subprocess.run(
                ["buildah", *store, *arguments],
                capture_output=True,
                text=True,
                env=environment,
                timeout=_STEP_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DevclusterError(f"buildah {arguments[0]} did not run: {error}") from error
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ buildah {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise DevclusterError(
                f"buildah {arguments[0]} failed",
                log=self.log,
                hint="check that the package registries answer, then build again",
            )
        return done.stdout.strip()

    def image_id(self, name: str) -> str | None:
        """The id of a stored image (hexadecimal); None when there is none of that name."""
        listing = self.run("images", "--json", "--no-trunc")
        for image in json.loads(listing or "[]") or []:
            if name in (image.get("names") or []):
                return str(image["id"]).removeprefix("sha256:")
        return None

    def import_rootfs(self, archive: Path, name: str) -> None:
        """Make an image of one layer out of a root file system's tar archive."""
        container = self.run("from", "scratch")
        try:
            self.run("add", "--quiet", container, str(archive), "/")
            self.run("commit", "--quiet", container, name)
        finally:
            self.run("rm", container)

    def build(self, context: Path, *, target: str, name: str) -> str:
        """Build one target of ``context``/Dockerfile on ``base``; return the image's id."""
        with tempfile.TemporaryDirectory(prefix="capibara-build-") as folder:
            volumes: Sequence[str] = build_volumes(Path(folder))
            self.run(
                *("bud", "--layers", "--network", "host", "--target", target, "--tag", name),
                *(f"--volume={volume}" for volume in volumes),
                f"--build-arg=PYTHON_IMAGE={self.base}",
                *("--file", str(context / "Dockerfile"), str(context)),
            )
        if (image := self.image_id(name)) is None:
            raise DevclusterError(f"buildah reported success, but there is no image {name}")
        return image

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an OCI archive, complete or not at all."""
        part = archive.with_suffix(".part")
        part.unlink(missing_ok=True)
        # zstd takes a third of gzip's time for the same size.
        options = ("--quiet", "--compression-format=zstd")
        self.run("push", *options, name, f"oci-archive:{part}:{name}")
        part.replace(archive)


def host_architecture() -> str:
    """The Debian name of this machine's architecture."""
    machine = os.uname().machine
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    if machine not in names:
        raise DevclusterError(f"images are built on x86_64 and aarch64 only, not on {machine}")
    return names[machine]
