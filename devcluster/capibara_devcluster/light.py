"""A control plane alone, on loopback, unprivileged: for integration tests and as fallback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from capibara_devcluster import kwok, pki, supervision
from capibara_devcluster.control_plane import ControlPlane, Credentials
from capibara_devcluster.errors import DevclusterError, tail
from capibara_devcluster.layout import Layout
from capibara_devcluster.network import LOOPBACK, pick_ports
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


def tools(kwok_nodes: int) -> tuple[str, ...]:
    """The programs that the profile needs."""
    simulated = catalogue.SIMULATED_NODES if kwok_nodes else ()
    return (*catalogue.CONTROL_PLANE, *simulated)


def start(plan: Plan, record: Record) -> Record:
    """Start the control plane, keeping the data and, where free, the ports of an earlier start."""
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
        components.append(kwok.component(plan.tools, layout.kubeconfig))
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
