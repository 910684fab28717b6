"""What clusters have in common that a supervisor of ours runs."""

from __future__ import annotations

from capibara_devcluster import supervision
from capibara_devcluster.backend import Health
from capibara_devcluster.layout import Layout
from capibara_devcluster.record import Record

_NOT_RUNNING = "the cluster's processes do not run; `capibara-devcluster up` starts them again"


def inspect(layout: Layout, record: Record) -> Health:
    """What the supervisor sees, if it is alive."""
    alive = record.supervisor is not None and record.supervisor.alive()
    seen = supervision.health(layout)
    components = {one.name: alive and one.ready for one in seen}
    if not alive:
        return Health(components, _NOT_RUNNING)
    unwell = [
        f"{one.name} (ended {one.restarts} times, log: {layout.logs / one.name}.log)"
        for one in seen
        if not one.ready
    ]
    return Health(components, f"not ready: {', '.join(unwell)}" if unwell else "")


def stop(layout: Layout, record: Record) -> None:
    """Kill the supervisor, and with it every component."""
    supervision.end(layout, record.supervisor)
