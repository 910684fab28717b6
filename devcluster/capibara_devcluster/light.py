"""A control plane alone, on loopback, unprivileged: for integration tests and as fallback."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from capibara_devcluster import kwok, pki, supervised, supervision
from capibara_devcluster.backend import Health
from capibara_devcluster.control_plane import ControlPlane, Credentials
from capibara_devcluster.errors import DevclusterError, tail
from capibara_devcluster.layout import Layout
from capibara_devcluster.network import LOOPBACK, pick_ports
from capibara_devcluster.options import Options
from capibara_devcluster.plan import Plan
from capibara_devcluster.process import Identity
from capibara_devcluster.record import Record
from capibara_devcluster.tools import catalogue

MISSING: Final = (
    "kubelet and container runtime: pods are stored but no container ever runs",
    "kube-proxy and cluster DNS: ClusterIPs and service names do not answer",
)
_PORT_ATTEMPTS: Final = 3
_PORT_IN_USE: Final = "address already in use"


class Light:
    """The control plane as a backend."""

    missing: tuple[str, ...] = MISSING

    def tools(self, options: Options) -> tuple[str, ...]:
        """Simulated nodes also need the scheduler."""
        simulated = catalogue.SIMULATED_NODES if options.kwok_nodes else ()
        return (*catalogue.CONTROL_PLANE, *simulated)

    def prepare(self) -> None:
        """Nothing but the tools is needed."""

    def start(self, plan: Plan, record: Record) -> Record:
        """Start the processes, keeping data and, where free, ports of an earlier start."""
        return _start(plan, record)

    def inspect(self, layout: Layout, record: Record, /) -> Health:
        """What the supervisor sees."""
        return supervised.inspect(layout, record)

    def stop(self, layout: Layout, record: Record, /) -> None:
        """End the processes."""
        supervised.stop(layout, record)

    def delete(self, layout: Layout, _record: Record, _purge: bool, /) -> None:
        """Delete everything."""
        shutil.rmtree(layout.root)

    def load_image(self, _layout: Layout, _record: Record, source: Path, /) -> list[str]:
        """There is no node to load images onto."""
        raise DevclusterError(
            f"{source} cannot be loaded: a light cluster runs no containers",
            hint="run the programs as processes, or use --provider native or kind",
        )


def _start(plan: Plan, record: Record) -> Record:
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        kept = record.ports is not None and record.ports.all_free()
        record = record if kept else replace(record, ports=pick_ports())
        try:
            return _start_once(plan, record)
        except DevclusterError:
            supervision.end(plan.layout, _stored(plan.layout))
            if attempt == _PORT_ATTEMPTS or not _port_was_taken(plan.layout):
                raise
            record = replace(record, ports=None)
    raise AssertionError("unreachable")


def _start_once(plan: Plan, record: Record) -> Record:
    layout = plan.layout
    control_plane = _control_plane(layout, record, plan.tools)
    record.with_supervisor(None).store(layout)
    pki.create(
        layout.pki,
        pki.control_plane_subjects(LOOPBACK),
        cluster=plan.context,
        server=control_plane.server,
    )
    plan.publish_kubeconfig()
    simulated = record.options.kwok_nodes > 0
    components = control_plane.components(scheduler=simulated)
    if simulated:
        components.append(kwok.component(plan.tools, layout.kubeconfig, control_plane.ports.kwok))
    supervision.start(
        layout,
        components,
        namespaces=None,
        owner=plan.owner,
        launched=lambda supervisor: record.with_supervisor(supervisor).store(layout),
    )
    started = _stored(layout)
    assert started is not None  # noqa: S101 - `launched` stored it
    supervision.wait_ready(layout, started, plan=plan)
    if simulated:
        kwok.add_nodes(plan, record.options.kwok_nodes)
    return record.with_supervisor(started)


def _control_plane(layout: Layout, record: Record, tools_dir: Path) -> ControlPlane:
    assert record.ports is not None  # noqa: S101 - chosen by `start`
    return ControlPlane(
        tools=tools_dir,
        credentials=Credentials(layout.pki),
        etcd_data=layout.etcd,
        ports=record.ports,
        audit_log=layout.audit_log if record.options.audit else None,
    )


def _stored(layout: Layout) -> Identity | None:
    record = Record.load(layout)
    return record.supervisor if record else None


def _port_was_taken(layout: Layout) -> bool:
    logs = layout.logs.glob("*.log")
    return any(_PORT_IN_USE in line for log in logs for line in tail(log))
