"""Builds by a Docker engine, where one answers; base images come from its registries."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from capibara_devcluster.errors import DevclusterError

_STEP_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Docker:
    """The engine that ``docker`` talks to; ``log`` receives the output of all commands."""

    log: Path

    def build(self, context: Path, *, target: str, name: str) -> str:
        """Build one target of ``context``/Dockerfile; return the image's id (hexadecimal)."""
        self._run(
            *("build", "--target", target, "--tag", name),
            *("--file", str(context / "Dockerfile"), str(context)),
        )
        identity = self._run("image", "inspect", "--format", "{{.Id}}", name)
        return identity.strip().removeprefix("sha256:")

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an archive, complete or not at all."""
        part = archive.with_suffix(".part")
        self._run("save", "--output", str(part), name)
        part.replace(archive)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            timeout=_STEP_TIMEOUT_SECONDS,
            check=False,
        )
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ docker {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise DevclusterError(
                f"docker {arguments[0]} failed",
                log=self.log,
                hint="see that the engine reaches its image registry and the package registries",
            )
        return done.stdout
