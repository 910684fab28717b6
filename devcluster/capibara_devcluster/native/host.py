"""What a native cluster has outside its namespaces: one link and one cgroup."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.namespaces import INTERFACE
from capibara_devcluster.network import Link

LINK_POOL: Final = "10.213.0.0/16"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_COMMAND_TIMEOUT_SECONDS: Final = 10
_REMOVAL_TIMEOUT_SECONDS: Final = 5.0
_CAP_NET_ADMIN: Final = 12
_CAP_SYS_ADMIN: Final = 21
_CAP_SYS_RESOURCE: Final = 24


def identifier(layout: Layout) -> str:
    """A short name that no other cluster of this machine has."""
    return hashlib.sha256(str(layout.root).encode()).hexdigest()[:10]


def interface(layout: Layout) -> str:
    """The host's end of the cluster's link."""
    return f"cap{identifier(layout)}"


def cgroup(layout: Layout) -> str:
    """The cgroup that holds every pod of the cluster."""
    return f"/capibara-{identifier(layout)}"


def why_impossible() -> str:
    """Why no native cluster can run here; empty when one can."""
    if not Path("/proc/self/ns/pid").exists():
        return "this is not Linux"
    if os.geteuid() != 0:
        return "it needs root"
    lacking = [cap for cap in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN) if not has_capability(cap)]
    if lacking:
        return "root lacks the capabilities NET_ADMIN and SYS_ADMIN here"
    if not os.access(_CGROUPS, os.W_OK):
        return f"{_CGROUPS} is read-only"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_TIMEOUT_SECONDS,
    )
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else ""


def may_raise_oom_priority() -> bool:
    """Whether containers may get a lower oom_score_adj than ours."""
    return has_capability(_CAP_SYS_RESOURCE)


def has_capability(number: int) -> bool:
    """Whether this process holds a capability."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def networks_in_use() -> list[ipaddress.IPv4Network]:
    """Every network that this machine has a route to, but for the default route."""
    shown = _run("ip", "-4", "-json", "route", "show", "table", "all")
    targets = [route["dst"] for route in json.loads(shown or "[]")]
    return [
        ipaddress.IPv4Network(target, strict=False) for target in targets if target[0].isdigit()
    ]


def add_link(layout: Layout, link: Link, supervisor: int) -> None:
    """Connect the host with the namespace that the supervisor holds."""
    remove_link(layout)
    name = interface(layout)
    peer = ("peer", "name", INTERFACE, "netns", str(supervisor))
    _run("ip", "link", "add", name, "type", "veth", *peer)
    _run("ip", "address", "add", f"{link.host}/{link.prefix}", "dev", name)
    _run("ip", "link", "set", name, "up")


def remove_link(layout: Layout) -> None:
    """Remove the host's end; harmless when it is gone."""
    name = interface(layout)
    if Path("/sys/class/net", name).exists():
        with contextlib.suppress(DevclusterError):  # it goes with its namespace at any moment
            _run("ip", "link", "delete", name)


def _run(*argv: str) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_SECONDS
    )
    if done.returncode != 0:
        raise DevclusterError(
            f"`{' '.join(argv)}` failed: {done.stderr.strip()}",
            hint="--provider light needs no network namespaces",
        )
    return done.stdout


def _hierarchies() -> Sequence[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    # Version 1 has a folder for each controller; some names are links to others.
    return sorted({entry.resolve() for entry in _CGROUPS.iterdir() if entry.is_dir()})


def add_cgroup(layout: Layout) -> None:
    """Create the cluster's cgroup in every hierarchy."""
    for hierarchy in _hierarchies():
        folder = hierarchy / cgroup(layout).lstrip("/")
        _enable_controllers(hierarchy)
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            inherited = hierarchy / setting
            if inherited.exists():
                (folder / setting).write_text(inherited.read_text())


def _enable_controllers(hierarchy: Path) -> None:
    available = hierarchy / "cgroup.controllers"
    if not available.exists():
        return
    for controller in available.read_text().split():
        # Some controllers cannot be handed down, such as when the root has real-time processes.
        with contextlib.suppress(OSError):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")


def remove_cgroup(layout: Layout) -> None:
    """Remove the cluster's cgroups; their processes are dead but may linger for a moment."""
    deadline = time.monotonic() + _REMOVAL_TIMEOUT_SECONDS
    while remaining := list(_cgroup_folders(layout)):
        for folder in remaining:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _cgroup_folders(layout: Layout) -> Iterator[Path]:
    """Deepest first."""
    for hierarchy in _hierarchies():
        top = hierarchy / cgroup(layout).lstrip("/")
        for folder, _, _ in os.walk(top, topdown=False):
            yield Path(folder)


def snapshotter(folder: Path) -> str:
    """The containerd snapshotter that works on the file system of `folder`."""
    return "native" if _file_system_type(folder) == _OVERLAYFS_MAGIC else "overlayfs"


_OVERLAYFS_MAGIC: Final = 0x794C7630


def _file_system_type(folder: Path) -> int:
    buffer = (ctypes.c_long * 32)()
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(folder), ctypes.byref(buffer)) != 0:
        return 0
    return int(buffer[0])
