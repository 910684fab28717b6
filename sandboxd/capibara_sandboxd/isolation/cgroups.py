"""Limits by cgroup, version 1 or 2, below the daemon's own cgroup.

Every controller is used on its own: what this host does not let us write is reported by
``Cgroups.controllers`` and left out, never pretended.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CONTROLLERS: Final = ("memory", "cpu", "pids", "freezer")
_PERIOD_MICROSECONDS: Final = 100_000
_MOUNTINFO: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one sandbox: MiB, whole cpus, processes and threads."""

    memory_mib: int
    cpus: int
    pids: int


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A writable place for one or several controllers."""

    version: int
    base: Path
    controllers: tuple[str, ...]


@dataclass(slots=True)
class Group:
    """The cgroups of one sandbox."""

    paths: dict[str, Path] = field(default_factory=dict)  # by controller
    version: int = 0

    def directories(self) -> tuple[Path, ...]:
        """Each directory once."""
        return tuple(dict.fromkeys(self.paths.values()))

    def open_procs(self) -> list[int]:
        """File descriptors through which a process of any user can move itself in."""
        return [os.open(path / "cgroup.procs", os.O_WRONLY) for path in self.directories()]

    def read(self, controller: str, *names: str) -> str | None:
        """Content of the first of these files that is there."""
        path = self.paths.get(controller)
        for name in names if path else ():
            with contextlib.suppress(OSError):
                return (path / name).read_text(encoding="ascii").strip()  # type: ignore[operator]
        return None

    def freeze(self, *, frozen: bool) -> bool:
        """Stop or continue every process; False where there is no freezer."""
        path = self.paths.get("freezer")
        if path is None:
            return False
        if self.version == 2:
            (path / "cgroup.freeze").write_text("1" if frozen else "0", encoding="ascii")
        else:
            state = "FROZEN" if frozen else "THAWED"
            (path / "freezer.state").write_text(state, encoding="ascii")
        return True

    def pids(self) -> set[int]:
        """Every process that is still inside.

        Version 2 shows 0 for one that is just ending or of another pid namespace; killing 0 would
        kill ourselves.
        """
        found: set[int] = set()
        for path in self.directories():
            with contextlib.suppress(OSError):
                text = (path / "cgroup.procs").read_text(encoding="ascii")
                found |= {int(line) for line in text.split()} - {0}
        return found

    async def remove(self, deadline_seconds: float = 5.0) -> bool:
        """Kill what is left inside and remove the directories; False when some stayed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_seconds
        with contextlib.suppress(OSError):
            self.freeze(frozen=False)
        while True:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            left = [path for path in self.directories() if not _removed(path)]
            if not left or loop.time() > until:
                return not left
            await asyncio.sleep(0.01)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _own_paths() -> dict[str, str]:
    """Path of this process by controller; "" is version 2."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts() -> list[tuple[Path, str, str, set[str]]]:
    """Cgroup mounts: mount point, root inside the hierarchy, type, options."""
    found = []
    for line in _MOUNTINFO.read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind.startswith("cgroup"):
            found.append((Path(fields[4]), fields[3], kind, set(options.split(","))))
    return found


def _place(mount: Path, root: str, own: str) -> Path:
    """Directory of our own cgroup below a mount that may show only a part of the tree."""
    if root != "/" and (own == root or own.startswith(root + "/")):
        own = own[len(root) :]
    place = mount / own.lstrip("/")
    return place if place.is_dir() else mount


def _try_version_1(name: str) -> list[Hierarchy]:
    own = _own_paths()
    found = []
    for mount, root, kind, options in _mounts():
        controllers = tuple(sorted(options & set(CONTROLLERS)))
        if kind != "cgroup" or not controllers:
            continue
        base = _place(mount, root, own.get(controllers[0], "/")) / name
        with contextlib.suppress(OSError):
            base.mkdir(exist_ok=True)
            if os.access(base / "cgroup.procs", os.W_OK):
                found.append(Hierarchy(1, base, controllers))
    return found


def _enable_version_2(place: Path, wanted: Sequence[str]) -> None:
    """Hand controllers down; processes of this cgroup first move to a leaf of their own."""
    control = place / "cgroup.subtree_control"
    text = " ".join(f"+{name}" for name in wanted)
    try:
        control.write_text(text, encoding="ascii")
    except OSError:
        leaf = place / "capibara-sandboxd-daemon"
        leaf.mkdir(exist_ok=True)
        for pid in (place / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                (leaf / "cgroup.procs").write_text(pid, encoding="ascii")
        control.write_text(text, encoding="ascii")


def _try_version_2(name: str) -> list[Hierarchy]:
    own = _own_paths().get("", "/")
    for mount, root, kind, _ in _mounts():
        if kind != "cgroup2":
            continue
        place = _place(mount, root, own)
        with contextlib.suppress(OSError):
            there = (place / "cgroup.controllers").read_text(encoding="ascii").split()
            wanted = [controller for controller in CONTROLLERS if controller in there]
            if not wanted:
                continue
            _enable_version_2(place, wanted)
            base = place / name
            base.mkdir(exist_ok=True)
            _enable_version_2(base, wanted)
            return [Hierarchy(2, base, (*wanted, "freezer"))]
    return []


class Cgroups:
    """The writable cgroup hierarchies of this host under one name."""

    def __init__(self, name: str) -> None:
        self.hierarchies = _try_version_2(name) or _try_version_1(name)
        self.controllers = tuple(
            sorted({name for found in self.hierarchies for name in found.controllers})
        )

    def create(self, sandbox_id: str, limits: Limits) -> Group:
        """Make the cgroups of one sandbox with its limits set."""
        group = Group()
        try:
            for found in self.hierarchies:
                path = found.base / sandbox_id
                path.mkdir()
                group.version = found.version
                group.paths |= dict.fromkeys(found.controllers, path)
                _apply(found, path, limits)
        except OSError:
            for path in group.directories():
                _removed(path)
            raise
        return group

    def leftovers(self) -> dict[str, Group]:
        """Cgroups of sandboxes that an earlier daemon of this name left, by sandbox id."""
        found: dict[str, Group] = {}
        for hierarchy in self.hierarchies:
            for path in hierarchy.base.iterdir():
                if path.is_dir():
                    group = found.setdefault(path.name, Group(version=hierarchy.version))
                    group.paths |= dict.fromkeys(hierarchy.controllers, path)
        return found

    def close(self) -> None:
        """Remove the common directory when it is empty."""
        for found in self.hierarchies:
            with contextlib.suppress(OSError):
                found.base.rmdir()


def _apply(found: Hierarchy, path: Path, limits: Limits) -> None:
    memory = str(limits.memory_mib * 1024 * 1024)
    quota = str(limits.cpus * _PERIOD_MICROSECONDS)
    if found.version == 2:
        values = {
            "memory": {"memory.max": memory, "memory.swap.max": "0", "memory.oom.group": "0"},
            "cpu": {"cpu.max": f"{quota} {_PERIOD_MICROSECONDS}"},
            "pids": {"pids.max": str(limits.pids)},
        }
    else:
        values = {
            "memory": {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory},
            "cpu": {"cpu.cfs_period_us": str(_PERIOD_MICROSECONDS), "cpu.cfs_quota_us": quota},
            "pids": {"pids.max": str(limits.pids)},
        }
    optional = {"memory.swap.max", "memory.memsw.limit_in_bytes", "memory.oom.group"}
    for controller in found.controllers:
        for name, value in values.get(controller, {}).items():
            if name in optional and not (path / name).exists():
                continue
            (path / name).write_text(value, encoding="ascii")
