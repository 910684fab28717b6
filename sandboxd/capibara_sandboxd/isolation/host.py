"""What this host can give: probed once at start, told by ``doctor``."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import bwrap
from .cgroups import Cgroups

_PROBE_SECONDS: Final = 10
# Far above the ids of people and services; each sandbox gets one of its own.
FIRST_HOST_UID: Final = 700_000_000
HOST_UIDS: Final = 65_536


class HostError(Exception):
    """This host cannot isolate sandboxes; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Host:
    """Isolation that works here."""

    bwrap: Path
    cgroups: Cgroups
    disable_userns: bool
    own_uids: bool

    def findings(self) -> list[tuple[str, bool, str]]:
        """Lines for people: what, whether it is enforced, how or why not."""
        limits = self.cgroups.controllers
        version = self.cgroups.hierarchies[0].version if self.cgroups.hierarchies else 0
        how = f"cgroup v{version}"
        none = "no writable cgroup here"
        uids = "a host uid of its own" if self.own_uids else "all sandboxes share our uid"
        nested = "no user namespaces inside" if self.disable_userns else "allowed by this kernel"
        memory = (
            (True, how)
            if "memory" in limits
            else (False, f"{none}: RLIMIT_DATA per process, not per sandbox")
        )
        return [
            ("namespaces", True, ", ".join((*bwrap.NAMESPACES, "mount"))),
            ("privileges", True, "no_new_privs, no capabilities, new session"),
            ("memory limit", *memory),
            ("cpu limit", "cpu" in limits, how if "cpu" in limits else none),
            ("process limit", True, how if "pids" in limits else "RLIMIT_NPROC"),
            ("pause", "freezer" in limits, how if "freezer" in limits else none),
            ("separate uids", self.own_uids, uids),
            ("nested user namespaces off", self.disable_userns, nested),
            ("network", True, "loopback only; allow_internet_access is accepted but gives none"),
            ("seccomp filter", False, "not in this version"),
            ("disk quota", False, "not in this version: 10 GiB a file, no total"),
        ]


def _probe(binary: Path, *, disable_userns: bool, uid: int | None) -> str | None:
    """Start a trivial sandbox; returns why it failed, None when it worked."""
    arguments = [
        str(binary),
        *bwrap.base_arguments(disable_userns=disable_userns),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"),
    ]
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def cgroup_name(state_dir: Path) -> str:
    """Name of our cgroup: the same for each start with this state directory."""
    return f"capibara-sandboxd-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]}"


def detect(state_dir: Path) -> Host:
    """Find the strongest isolation that works; none at all is an error."""
    binary = bwrap.install(state_dir)
    uids = [FIRST_HOST_UID, None] if os.geteuid() == 0 else [None]
    reason = None
    for uid in uids:
        for disable_userns in (True, False):
            reason = _probe(binary, disable_userns=disable_userns, uid=uid)
            if reason is None:
                cgroups = Cgroups(cgroup_name(state_dir))
                return Host(binary, cgroups, disable_userns, uid is not None)
    raise HostError(
        f"bubblewrap cannot make a sandbox here: {reason}. sandboxd needs user namespaces: "
        "kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container, run it privileged"
    )
