"""Starting and ending a native cluster."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from capibara_devcluster import debian, files, kubectl, pki, supervised, supervision
from capibara_devcluster.backend import Health
from capibara_devcluster.control_plane import ControlPlane, Credentials
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.namespaces import Namespaces
from capibara_devcluster.native import config, host, images, node
from capibara_devcluster.native.config import NodeConfig
from capibara_devcluster.network import Link, Ports, pick_link
from capibara_devcluster.options import Options
from capibara_devcluster.plan import Plan
from capibara_devcluster.process import Identity
from capibara_devcluster.record import Record
from capibara_devcluster.tools import catalogue
from capibara_devcluster.tools.locate import cache_dir

TOOLS: Final = (*catalogue.CONTROL_PLANE, *catalogue.NODE)
MISSING: Final = (
    "internet from pods: they reach each other, the cluster and this machine, nothing beyond",
    "NetworkPolicy: policies are stored but not enforced",
)
# The cluster has a network namespace of its own, so the usual ports are always free.
_PORTS: Final = Ports(
    apiserver=6443, etcd=2379, etcd_peer=2380, controller_manager=10257, scheduler=10259, kwok=10247
)
_LINK_LOCK_TIMEOUT_SECONDS: Final = 60.0
_SYSTEM_PROGRAMS: Final = ("runc", "nft", "ip", "mount", "unshare")
_KEPT_ON_DOWN: Final = "containerd"


def node_name(layout: Layout) -> str:
    """The name of the only node, also its host name."""
    return f"{layout.name}-node"


class Native:
    """The node as a backend."""

    missing: tuple[str, ...] = MISSING

    def tools(self, options: Options) -> tuple[str, ...]:
        """Everything but the container runtime, which is the distribution's."""
        if options.kwok_nodes:
            raise DevclusterError(
                "simulated nodes are added to a control plane only",
                hint="add --profile control-plane",
            )
        return TOOLS

    def prepare(self) -> None:
        """Check what the machine allows, then install the distribution's packages."""
        if why := host.why_impossible():
            raise DevclusterError(
                f"no native cluster can run here: {why}", hint="use --provider light or kind"
            )
        debian.ensure(_SYSTEM_PROGRAMS)

    def start(self, plan: Plan, record: Record) -> Record:
        """Start the node, with the data and images of an earlier start where there are any."""
        return _start(plan, record)

    def inspect(self, layout: Layout, record: Record, /) -> Health:
        """What the supervisor sees, and whether the node is Ready."""
        health = supervised.inspect(layout, record)
        if not health.ready:
            return health
        components = {**health.components, **kubectl.nodes(layout)}
        ready = all(components.values())
        return Health(components, "" if ready else "the node is not Ready; see `kubectl describe`")

    def stop(self, layout: Layout, record: Record, /) -> None:
        """End the processes and remove what they had outside their namespaces."""
        supervised.stop(layout, record)
        clean_host(layout)

    def delete(self, layout: Layout, _record: Record, purge: bool, /) -> None:
        """Delete the files; without `purge` containerd's content, so its images, stays."""
        delete(layout, purge=purge)

    def load_image(self, layout: Layout, record: Record, source: Path, /) -> list[str]:
        """Import an archive into the node's containerd."""
        if record.supervisor is None or not record.supervisor.alive():
            raise DevclusterError("the cluster does not run", hint="capibara-devcluster up")
        return images.load(source, tools=layout.root / "bin", supervisor=record.supervisor)


def _start(plan: Plan, record: Record) -> Record:
    clean_host(plan.layout)
    record = replace(record, ports=_PORTS).with_supervisor(None)
    record.store(plan.layout)
    # Between choosing a network and using it nobody else may choose the same one.
    lock = cache_dir() / ".links.lock"
    with files.locked(lock, timeout=_LINK_LOCK_TIMEOUT_SECONDS):
        link = _link(record)
        record = replace(record, link=str(link.network))
        supervisor = _start_processes(plan, record, link)
    record = record.with_supervisor(supervisor)
    supervision.wait_ready(
        plan.layout, supervisor, names=("kube-apiserver", "containerd"), plan=plan
    )
    images.load_pause(plan, supervisor)
    dns = config.dns_manifest(node_name(plan.layout), link.node)
    kubectl.run(plan.layout, "apply", "--server-side", "-f", "-", stdin=dns)
    supervision.wait_ready(plan.layout, supervisor, plan=plan)
    _wait_for_node(plan)
    return record


def _link(record: Record) -> Link:
    used = host.networks_in_use()
    if record.link:
        kept = IPv4Network(record.link)
        if not any(kept.overlaps(network) for network in used):
            return Link(kept)
    return pick_link(host.LINK_POOL, used)


def _start_processes(plan: Plan, record: Record, link: Link) -> Identity:
    layout = plan.layout
    started: list[Identity] = []

    def launched(supervisor: Identity) -> None:
        record.with_supervisor(supervisor).store(layout)
        started.append(supervisor)
        host.add_cgroup(layout)
        host.add_link(layout, link, supervisor.pid)

    control_plane = ControlPlane(
        tools=plan.tools,
        credentials=Credentials(layout.pki),
        etcd_data=layout.etcd,
        ports=_PORTS,
        advertise=link.node,
        audit_log=layout.audit_log if record.options.audit else None,
    )
    _write_credentials(plan, control_plane.server, link.node)
    described = _node_config(plan)
    for path, content in described.files().items():
        files.write(path, content)
    supervision.start(
        layout,
        [*control_plane.components(scheduler=True), *node.components(described, address=link.node)],
        namespaces=Namespaces(
            hostname=described.node,
            node_dir=str(layout.node),
            address=f"{link.node}/{link.prefix}",
            gateway=link.host,
            pod_cidr=config.POD_CIDR,
        ),
        owner=plan.owner,
        launched=launched,
    )
    return started[0]


def _write_credentials(plan: Plan, server: str, address: str) -> None:
    subjects = {
        **pki.control_plane_subjects(address),
        **pki.node_subjects(node_name(plan.layout), address),
    }
    pki.create(plan.layout.pki, subjects, cluster=plan.context, server=server)
    plan.publish_kubeconfig()


def _node_config(plan: Plan) -> NodeConfig:
    layout = plan.layout
    layout.node.mkdir(parents=True, exist_ok=True)
    runc = debian.find("runc")
    assert runc is not None  # noqa: S101 - `prepare` saw to it
    return NodeConfig(
        node=node_name(layout),
        folder=layout.root / "config",
        pki=layout.pki,
        tools=plan.tools,
        runc=runc,
        cgroup=host.cgroup(layout),
        snapshotter=host.snapshotter(layout.node),
        may_raise_oom_priority=host.may_raise_oom_priority(),
    )


def _wait_for_node(plan: Plan) -> None:
    seconds = max(1, int(plan.deadline - time.monotonic()))
    name = f"node/{node_name(plan.layout)}"
    plan.progress("waiting for the node")
    kubectl.run(plan.layout, "wait", "--for=create", name, f"--timeout={seconds}s")
    kubectl.run(plan.layout, "wait", "--for=condition=Ready", name, f"--timeout={seconds}s")


def clean_host(layout: Layout) -> None:
    """Remove what a dead cluster left outside its folder."""
    host.remove_link(layout)
    host.remove_cgroup(layout)


def delete(layout: Layout, *, purge: bool) -> None:
    """Delete the files of a cluster that is stopped, or was already down."""
    kept: Path = layout.node / _KEPT_ON_DOWN
    if not purge and kept.is_dir():
        _delete_others(layout.root, layout.node)
        _delete_others(layout.node, kept)
    else:
        shutil.rmtree(layout.root)


def _delete_others(folder: Path, kept: Path) -> None:
    for entry in folder.iterdir():
        if entry == kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
