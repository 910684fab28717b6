"""Starting, watching and ending a cluster's supervisor from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from capibara_devcluster import files, launcher
from capibara_devcluster.component import Component
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.namespaces import Namespaces
from capibara_devcluster.plan import Plan
from capibara_devcluster.process import Identity

_LAUNCH_TIMEOUT_SECONDS: Final = 15
_POLL_SECONDS: Final = 0.05
_GIVE_UP_RESTARTS: Final = 4


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """What the supervisor last saw of a component."""

    name: str
    ready: bool
    restarts: int
    exit_code: int | None
    process: Identity | None


def start(
    layout: Layout,
    components: Sequence[Component],
    *,
    namespaces: Namespaces | None,
    owner: Identity | None,
    launched: Callable[[Identity], None],
) -> None:
    """Start a supervisor; no process of the cluster runs before `launched` has returned.

    Args:
        layout: paths of the cluster.
        components: what to run.
        namespaces: where; None = beside us on the host.
        owner: process whose end ends the cluster.
        launched: called with the supervisor, which holds its namespaces but has done nothing yet.
    """
    _write_spec(layout, components, namespaces, owner)
    process = subprocess.Popen(
        [sys.executable, "-m", launcher.__name__, str(layout.spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None  # noqa: S101 - it was asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        line = process.stdout.readline()
        if process.wait(_LAUNCH_TIMEOUT_SECONDS) != 0 or not line:
            reason = process.stderr.read().decode(errors="replace").strip().splitlines()
            raise DevclusterError(
                f"the supervisor did not start: {reason[-1] if reason else 'no message'}",
                hint="try --provider light, which needs no namespaces",
            )
        supervisor = Identity.of(int(line))
        if supervisor is None:
            raise DevclusterError(
                "the supervisor ended at once", log=layout.logs / "supervisor.log"
            )
        launched(supervisor)
        process.stdin.write(launcher.GO)


def _write_spec(
    layout: Layout,
    components: Sequence[Component],
    namespaces: Namespaces | None,
    owner: Identity | None,
) -> None:
    layout.logs.mkdir(parents=True, exist_ok=True)
    layout.health.unlink(missing_ok=True)
    spec: Mapping[str, Any] = {
        "components": [component.dump() for component in components],
        "logs": str(layout.logs),
        "health": str(layout.health),
        "owner": owner.dump() if owner else None,
        "namespaces": namespaces.dump() if namespaces else None,
    }
    files.write_json(layout.spec, spec)


def health(layout: Layout) -> list[ComponentHealth]:
    """What the supervisor last wrote, in the order of starting; empty before it wrote."""
    stored = files.read_json(layout.health)
    return [
        ComponentHealth(
            name=name,
            ready=seen["ready"],
            restarts=seen["restarts"],
            exit_code=seen["exitCode"],
            process=Identity.load(seen["process"]),
        )
        for name, seen in (stored["components"] if stored else {}).items()
    ]


def wait_ready(
    layout: Layout, supervisor: Identity, *, plan: Plan, names: Collection[str] = ()
) -> None:
    """Return once the named components, or all of them, are ready.

    Args:
        layout: paths of the cluster.
        supervisor: the process to watch.
        plan: gives the deadline and shows progress.
        names: components; empty = all.
    """
    shown = ""
    while True:
        seen = health(layout)
        asked = [one for one in seen if not names or one.name in names]
        waiting = [one.name for one in asked if not one.ready]
        if asked and not waiting:
            return
        line = f"waiting for {', '.join(waiting)}"
        if waiting and line != shown:
            shown = line
            plan.progress(line)
        _check(layout, supervisor, seen)
        if time.monotonic() > plan.deadline:
            raise _not_ready(layout, seen, "the time is over")
        time.sleep(_POLL_SECONDS)


def _check(layout: Layout, supervisor: Identity, seen: Sequence[ComponentHealth]) -> None:
    if not supervisor.alive():
        raise DevclusterError(
            "the cluster's supervisor ended while the cluster was starting",
            log=layout.logs / "supervisor.log",
            hint="repeat the command; if it happens again, look at the log",
        )
    if any(not one.ready and one.restarts >= _GIVE_UP_RESTARTS for one in seen):
        raise _not_ready(layout, seen, "it keeps ending")


def _not_ready(layout: Layout, seen: Sequence[ComponentHealth], why: str) -> DevclusterError:
    failing = [one for one in seen if not one.ready]
    if not failing:
        return DevclusterError("the supervisor started nothing", log=layout.logs / "supervisor.log")
    # The first that is not ready keeps the later ones waiting; one that ends says most.
    first = max(failing, key=lambda one: one.restarts)
    ended = f" (exit code {first.exit_code})" if first.exit_code is not None else ""
    return DevclusterError(
        f"{first.name} did not become ready: {why}{ended}",
        log=layout.logs / f"{first.name}.log",
        hint="look at the log; `capibara-devcluster down --purge` then `up` starts afresh",
    )


def end(layout: Layout, supervisor: Identity | None) -> None:
    """Kill the supervisor and whatever it could not take with it; harmless when all is gone."""
    recorded = [one.process for one in health(layout) if one.process is not None]
    in_namespaces = bool((files.read_json(layout.spec) or {}).get("namespaces"))
    if supervisor is not None and not supervisor.kill():
        raise DevclusterError(
            f"process {supervisor.pid} does not end, though it was killed",
            hint="repeat the command; a process stuck in the kernel ends only with the machine",
        )
    # Inside namespaces pids count from 1 and mean nothing to us; there they are gone already.
    for process in () if in_namespaces else recorded:
        process.kill()
