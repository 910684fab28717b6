"""The operations on clusters: up, down, status and load-image."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capibara_devcluster import files, kind, kubectl
from capibara_devcluster.backend import Backend
from capibara_devcluster.current import Current
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.light import Light
from capibara_devcluster.native import host
from capibara_devcluster.native import provider as native
from capibara_devcluster.options import Options, Profile, Provider
from capibara_devcluster.plan import Plan
from capibara_devcluster.process import Identity
from capibara_devcluster.record import Record
from capibara_devcluster.status import Status
from capibara_devcluster.tools import provide

LOCK_TIMEOUT_SECONDS: Final = 900.0
Progress = Callable[[str], None]
_BACKENDS: Final[dict[Provider, Backend]] = {
    Provider.KIND: kind.Kind(),
    Provider.NATIVE: native.Native(),
    Provider.LIGHT: Light(),
    Provider.CURRENT: Current(),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What `up` is to bring up.

    Args:
        extra_tools: programs to put beside kubectl, such as helm.
        owner_pid: process whose end ends the cluster; None = it runs until `down`.
        timeout: seconds for the cluster itself; building tools is not counted.
    """

    provider: Provider = Provider.AUTO
    profile: Profile = Profile.FULL
    options: Options = field(default_factory=Options)
    extra_tools: tuple[str, ...] = ()
    owner_pid: int | None = None
    timeout: float = 120.0


def up(layout: Layout, request: Request, progress: Progress = lambda _: None) -> Status:
    """Bring a cluster up, repair it, or find that it is up already."""
    with _lock(layout, progress):
        record = _agreed(layout, request, progress)
        backend = _BACKENDS[record.provider]
        names = (*backend.tools(record.options), *request.extra_tools)
        bin_dir = provide.provide(names, layout.root / "bin")
        if not (record.complete and backend.inspect(layout, record).ready):
            backend.prepare()
            backend.stop(layout, record)
            plan = Plan(
                layout=layout,
                tools=bin_dir,
                deadline=time.monotonic() + request.timeout,
                owner=_owner(request.owner_pid),
                progress=progress,
            )
            backend.start(plan, record).completed().store(layout)
        write_env_file(layout, bin_dir)
        return status(layout)


def down(layout: Layout, *, purge: bool = False, progress: Progress = lambda _: None) -> bool:
    """End a cluster and delete its data; returns False when there was none.

    Args:
        layout: paths of the cluster.
        purge: also delete what would make the next `up` faster.
        progress: shows a line to the user.
    """
    if not layout.root.exists():
        return False
    with _lock(layout, progress):
        record = Record.load(layout)
        _remove_env_file(layout)
        if record is None:
            # An earlier `down` left images, or an earlier `up` died before its first step.
            native.delete(layout, purge=purge)
            return False
        backend = _BACKENDS[record.provider]
        backend.stop(layout, record)
        backend.delete(layout, record, purge)
    return True


def status(layout: Layout) -> Status:
    """What is known of a cluster now; raises when it is not up."""
    record = _existing(layout)
    backend = _BACKENDS[record.provider]
    health = backend.inspect(layout, record)
    unfinished = "" if record.complete else "`up` did not reach its end; repeat it"
    version = kubectl.server_version(layout) if health.ready else ""
    return Status(
        name=layout.name,
        provider=record.provider,
        profile=record.profile,
        ready=record.complete and health.ready,
        kubeconfig=str(layout.kubeconfig),
        missing=backend.missing,
        components=health.components,
        versions={"kubernetes": version} if version else {},
        message=health.message or unfinished,
    )


def kubeconfig(layout: Layout) -> Path:
    """The administrator's kubeconfig; raises when the cluster is not up."""
    _existing(layout)
    return layout.kubeconfig


def load_images(
    layout: Layout, sources: Sequence[Path], progress: Progress = lambda _: None
) -> list[str]:
    """Bring image archives to the cluster's nodes; returns the names that were not there."""
    with _lock(layout, progress):
        record = _existing(layout)
        backend = _BACKENDS[record.provider]
        loaded: list[str] = []
        for source in sources:
            if not source.exists():
                raise DevclusterError(f"{source} does not exist", hint="build the image first")
            names = backend.load_image(layout, record, source.absolute())
            progress(f"{source.name}: {', '.join(names) or 'already there'}")
            loaded += names
        return loaded


def write_env_file(layout: Layout, bin_dir: Path) -> None:
    """Write the file to source: KUBECONFIG and a PATH with kubectl, helm and our own programs."""
    # Beside the interpreter are this distribution's own programs, the kubectl plugin among them.
    path = f"{bin_dir}:{Path(sys.executable).parent}"
    direct = f'export NO_PROXY="${{NO_PROXY:+$NO_PROXY,}}{host.LINK_POOL}" no_proxy="$NO_PROXY"\n'
    files.write(
        layout.env_file,
        f"# Environment of the cluster {layout.name}. Use it: . {layout.env_file}\n"
        f"export KUBECONFIG='{layout.kubeconfig}'\n"
        f"export PATH='{path}':\"$PATH\"\n" + direct,
        mode=0o644,
    )


def _remove_env_file(layout: Layout) -> None:
    # It may belong to another cluster of the same folder.
    with contextlib.suppress(FileNotFoundError):
        if f"'{layout.kubeconfig}'" in layout.env_file.read_text(encoding="utf-8"):
            layout.env_file.unlink()


def _existing(layout: Layout) -> Record:
    record = Record.load(layout)
    if record is None:
        raise DevclusterError(
            f"there is no cluster {layout.name!r} in {layout.state_dir}",
            hint="bring it up: capibara-devcluster up",
        )
    return record


def _agreed(layout: Layout, request: Request, progress: Progress) -> Record:
    existing = Record.load(layout)
    provider = request.provider
    if provider is Provider.AUTO:
        provider = existing.provider if existing else choose(request.profile, progress)
    profile = Profile.CONTROL_PLANE if provider is Provider.LIGHT else request.profile
    if profile is Profile.CONTROL_PLANE and provider is not Provider.LIGHT:
        raise DevclusterError(
            f"the provider {provider} makes whole clusters only",
            hint="leave --provider or --profile out",
        )
    wanted = Record(provider=provider, profile=profile, options=request.options)
    if existing is None:
        return wanted
    if not existing.same_choice(wanted):
        raise DevclusterError(
            f"the cluster {layout.name!r} exists with other options",
            hint="`capibara-devcluster down` first, or choose another --name",
        )
    return existing


def choose(profile: Profile, progress: Progress) -> Provider:
    """The provider that suits this machine best; says what a light cluster leaves out."""
    if profile is Profile.CONTROL_PLANE:
        return Provider.LIGHT
    if kind.docker_answers():
        return Provider.KIND
    why = host.why_impossible()
    if not why:
        return Provider.NATIVE
    progress(f"no Docker engine answers, and no node can run here ({why}): light cluster")
    for missing in Light.missing:
        progress(f"  left out: {missing}")
    return Provider.LIGHT


def _owner(pid: int | None) -> Identity | None:
    if pid is None:
        return None
    owner = Identity.of(pid)
    if owner is None:
        raise DevclusterError(f"no process has the owner's pid {pid}", hint="check --owner-pid")
    return owner


@contextlib.contextmanager
def _lock(layout: Layout, progress: Progress) -> Iterator[None]:
    def waiting() -> None:
        progress("waiting for another command on this cluster")

    with files.locked(layout.lock_file(), timeout=LOCK_TIMEOUT_SECONDS, waiting=waiting):
        yield
