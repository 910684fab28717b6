"""A cluster in Docker containers, made by kind."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from capibara_devcluster import files, kubectl
from capibara_devcluster.archives import as_file, named_digests
from capibara_devcluster.backend import Health
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.options import Options
from capibara_devcluster.plan import Plan
from capibara_devcluster.record import Record

_DOCKER_TIMEOUT_SECONDS: Final = 10
_DELETE_TIMEOUT_SECONDS: Final = 120
_LOAD_TIMEOUT_SECONDS: Final = 600
_MINIMUM_CREATE_SECONDS: Final = 600


def docker_answers() -> bool:
    """Whether a Docker engine can be reached."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            check=False,
            timeout=_DOCKER_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def cluster_name(layout: Layout) -> str:
    """The cluster's name to kind, which knows one list of clusters for the whole machine."""
    return layout.name if layout.name.startswith("capibara") else f"capibara-{layout.name}"


def config() -> str:
    """The file for `kind create cluster --config`."""
    return yaml.safe_dump(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane"}],
        },
        sort_keys=False,
    )


def create_arguments(layout: Layout, *, wait_seconds: int) -> list[str]:
    """Arguments of kind that create the cluster."""
    return [
        "create",
        "cluster",
        f"--name={cluster_name(layout)}",
        f"--kubeconfig={layout.kubeconfig}",
        f"--config={layout.root / 'kind.yaml'}",
        f"--wait={wait_seconds}s",
    ]


def delete_arguments(layout: Layout) -> list[str]:
    """Arguments of kind that delete the cluster, or do nothing when there is none."""
    return [
        "delete",
        "cluster",
        f"--name={cluster_name(layout)}",
        f"--kubeconfig={layout.kubeconfig}",
    ]


def load_arguments(layout: Layout, archive: Path) -> list[str]:
    """Arguments of kind that load an image archive onto every node."""
    return ["load", "image-archive", str(archive), f"--name={cluster_name(layout)}"]


class Kind:
    """The cluster as a backend."""

    missing: tuple[str, ...] = ()

    def tools(self, options: Options) -> tuple[str, ...]:
        """Kind brings the rest in its node image."""
        if options.audit or options.kwok_nodes:
            raise DevclusterError(
                "a kind cluster has neither an audit log nor simulated nodes",
                hint="use --provider light or --profile control-plane for those",
            )
        return ("kind", "kubectl")

    def prepare(self) -> None:
        """Check that Docker answers."""
        if not docker_answers():
            raise DevclusterError(
                "no Docker engine answers, and kind needs one",
                hint="start Docker, or use --provider native or light",
            )

    def start(self, plan: Plan, record: Record) -> Record:
        """Create the cluster, after removing what an interrupted `up` left."""
        layout = plan.layout
        record.store(layout)
        files.write(layout.root / "kind.yaml", config())
        _kind(layout, *delete_arguments(layout), timeout=_DELETE_TIMEOUT_SECONDS)
        seconds = int(max(plan.deadline - time.monotonic(), _MINIMUM_CREATE_SECONDS))
        plan.progress("kind creates the cluster (its node image is pulled the first time)")
        arguments = create_arguments(layout, wait_seconds=seconds)
        _kind(layout, *arguments, timeout=2 * seconds)
        return record

    def inspect(self, layout: Layout, _record: Record, /) -> Health:
        """Ask the API server about itself and its nodes."""
        return kubectl.inspect(layout)

    def stop(self, _layout: Layout, _record: Record, /) -> None:
        """Nothing of kind's runs outside the containers, which `delete` removes."""

    def delete(self, layout: Layout, _record: Record, _purge: bool, /) -> None:
        """Delete the containers, then our files."""
        if (layout.root / "bin" / "kind").exists():
            _kind(layout, *delete_arguments(layout), timeout=_DELETE_TIMEOUT_SECONDS)
        shutil.rmtree(layout.root)

    def load_image(self, layout: Layout, _record: Record, source: Path, /) -> list[str]:
        """Hand the archive to kind, which skips what its nodes have."""
        with archive_file(source) as archive:
            _kind(layout, *load_arguments(layout, archive), timeout=_LOAD_TIMEOUT_SECONDS)
            return sorted(named_digests(archive))


@contextlib.contextmanager
def archive_file(source: Path) -> Iterator[Path]:
    """An archive as it is, or an OCI layout folder packed into a temporary one."""
    with tempfile.TemporaryDirectory(prefix="capibara-image-") as scratch:
        yield as_file(source, Path(scratch))


def _kind(layout: Layout, *arguments: str, timeout: float) -> None:
    log = layout.logs / "kind.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [layout.root / "bin" / "kind", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout,
        )
    if done.returncode != 0:
        raise DevclusterError(
            f"`kind {' '.join(arguments)}` failed",
            log=log,
            hint="see that Docker is well (docker info), then repeat the command",
        )
