"""The operations on clusters: up, down and status."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capibara_devcluster import files, light, supervision
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout, checkout
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
    options: Options = Options()
    extra_tools: tuple[str, ...] = ()
    owner_pid: int | None = None
    timeout: float = 120.0


def up(layout: Layout, request: Request, progress: Progress = lambda _: None) -> Status:
    """Bring a cluster up, repair it, or find that it is up already."""
    with _lock(layout, progress):
        record = _agreed(layout, request)
        bin_dir = provide.provide((*_tools(record), *request.extra_tools), layout.root / "bin")
        if not (record.complete and _is_well(layout, record)):
            supervision.end(layout, record.supervisor)
            plan = Plan(
                layout=layout,
                tools=bin_dir,
                deadline=time.monotonic() + request.timeout,
                owner=_owner(request.owner_pid),
                progress=progress,
            )
            _start(plan, record).completed().store(layout)
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
        supervision.end(layout, record.supervisor if record else None)
        if layout.env_file.is_file() and str(layout.root) in layout.env_file.read_text():
            layout.env_file.unlink()
        _delete(layout, record, purge=purge)
    return True


def status(layout: Layout) -> Status:
    """What is known of a cluster now; raises when it was never brought up."""
    record = Record.load(layout)
    if record is None:
        raise DevclusterError(
            f"there is no cluster {layout.name!r} in {layout.state_dir}",
            hint="bring it up: capibara-devcluster up",
        )
    alive = record.supervisor is not None and record.supervisor.alive()
    seen = supervision.health(layout)
    components = {one.name: alive and one.ready for one in seen}
    return Status(
        name=layout.name,
        provider=record.provider,
        profile=record.profile,
        ready=record.complete and alive and bool(components) and all(components.values()),
        kubeconfig=str(layout.kubeconfig),
        missing=_missing(record),
        components=components,
        message="" if alive else "the cluster's processes do not run; `up` starts them again",
    )


def write_env_file(layout: Layout, bin_dir: Path) -> None:
    """Write the file to source: KUBECONFIG and a PATH with kubectl, helm and our own programs."""
    root = checkout()
    folders = [bin_dir, *([root / ".venv" / "bin"] if root else [])]
    path = ":".join(str(folder) for folder in folders)
    files.write(
        layout.env_file,
        f"# Environment of the cluster {layout.name}. Use it: . {layout.env_file}\n"
        f"export KUBECONFIG='{layout.kubeconfig}'\n"
        f"export PATH='{path}':\"$PATH\"\n",
        mode=0o644,
    )


def _agreed(layout: Layout, request: Request) -> Record:
    existing = Record.load(layout)
    provider = request.provider
    if provider is Provider.AUTO:
        provider = existing.provider if existing else choose(request.profile)
    wanted = Record(provider=provider, profile=_profile(provider, request), options=request.options)
    if existing is None:
        return wanted
    if not existing.same_choice(wanted):
        raise DevclusterError(
            f"the cluster {layout.name!r} exists with other options",
            hint="`capibara-devcluster down` first, or choose another --name",
        )
    return existing


def choose(profile: Profile) -> Provider:
    """The provider that suits this machine best."""
    if profile is Profile.CONTROL_PLANE or host.why_impossible():
        return Provider.LIGHT
    return Provider.NATIVE


def _profile(provider: Provider, request: Request) -> Profile:
    return Profile.CONTROL_PLANE if provider is Provider.LIGHT else request.profile


def _tools(record: Record) -> tuple[str, ...]:
    if record.provider is Provider.NATIVE:
        return native.TOOLS
    return light.tools(record.options.kwok_nodes)


def _start(plan: Plan, record: Record) -> Record:
    if record.provider is Provider.NATIVE:
        return native.start(plan, record)
    return light.start(plan, record)


def _missing(record: Record) -> tuple[str, ...]:
    return native.MISSING if record.provider is Provider.NATIVE else light.MISSING


def _delete(layout: Layout, record: Record | None, *, purge: bool) -> None:
    if record is None or record.provider is Provider.NATIVE:
        native.delete(layout, purge=purge)
    else:
        shutil.rmtree(layout.root)


def _is_well(layout: Layout, record: Record) -> bool:
    if record.supervisor is None or not record.supervisor.alive():
        return False
    seen = supervision.health(layout)
    return bool(seen) and all(one.ready for one in seen)


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
