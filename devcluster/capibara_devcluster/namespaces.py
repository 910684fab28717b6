"""What a node's namespaces hold: private mounts, one link to the host, masquerading for pods."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

_COMMAND_TIMEOUT_SECONDS: Final = 10
INTERFACE: Final = "eth0"
# Sockets may have paths of at most 107 bytes, so the run folder appears here under a short path.
NODE_DIR: Final = Path("/run/capibara")

_MASQUERADE: Final = """
table ip capibara {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pods} oifname "{interface}" masquerade
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """What is set up inside a cluster's namespaces.

    Args:
        hostname: the node's name.
        node_dir: folder on the host that appears as `NODE_DIR`.
        address: the node's address with prefix length.
        gateway: the host's end of the link.
        pod_cidr: addresses of pods, masqueraded when they leave the node.
    """

    hostname: str
    node_dir: str
    address: str
    gateway: str
    pod_cidr: str

    def dump(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def enter(wanted: Namespaces) -> None:
    """Set up the namespaces that this process, their PID 1, is already in."""
    socket.sethostname(wanted.hostname)
    _mounts(Path(wanted.node_dir))
    _network(wanted)


def _mounts(node_dir: Path) -> None:
    # Private first, so that nothing reaches the host and mounts can be moved.
    _run("mount", "-n", "--make-rprivate", "/")
    _run("mount", "-n", "-t", "proc", "proc", "/proc")
    staging = node_dir / "run"
    staging.mkdir(parents=True, exist_ok=True)
    _run("mount", "-n", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(staging))
    inner = staging / NODE_DIR.name
    inner.mkdir()
    _run("mount", "-n", "--bind", str(node_dir), str(inner))
    _run("mount", "-n", "--move", str(staging), "/run")
    logs = node_dir / "log"
    logs.mkdir(parents=True, exist_ok=True)
    _run("mount", "-n", "--bind", str(logs), "/var/log")
    # Shared at last: what the kubelet mounts has to reach containers that run already.
    _run("mount", "-n", "--make-rshared", "/")


def _network(wanted: Namespaces) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", wanted.address, "dev", INTERFACE)
    _run("ip", "link", "set", INTERFACE, "up")
    _run("ip", "route", "add", "default", "via", wanted.gateway)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    rules = _MASQUERADE.format(pods=wanted.pod_cidr, interface=INTERFACE)
    _run("nft", "-f", "-", stdin=rules)


def _run(*argv: str, stdin: str | None = None) -> None:
    subprocess.run(argv, input=stdin, text=True, check=True, timeout=_COMMAND_TIMEOUT_SECONDS)
