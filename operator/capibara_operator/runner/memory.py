"""The kernel's out-of-memory killer: how often it has struck here, and whom it prefers."""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"
EXPENDABLE, ORDINARY = "1000", "0"


def oom_kills() -> int | None:
    """Kills counted by this process's memory cgroup if that is mounted, else by the machine."""
    for path in _candidates():
        count = _read(path)
        if count is not None:
            return count
    return None


def set_oom_score(value: str) -> None:
    """Have this process, and those that it starts from now on, killed sooner or later."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        return


def _candidates() -> list[str]:
    paths = []
    for controllers, group in _own_groups():
        if controllers == "":
            paths.append(ROOT + group + "/memory.events")
        elif "memory" in controllers.split(","):
            paths.append(ROOT + "/memory" + group + "/memory.oom_control")
    # In a sandbox the mount often starts at its own cgroup, and the path above is the host's.
    paths += [ROOT + name for name in ("/memory.events", "/memory.oom_control")]
    paths += [ROOT + "/memory/memory.oom_control", "/proc/vmstat"]
    return paths


def _own_groups() -> list[tuple[str, str]]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    return [(row[1], os.path.normpath("/" + row[2])) for row in rows if len(row) == 3]


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except (OSError, ValueError):
        return None
    return None
