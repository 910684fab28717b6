"""One sandbox: its folder, cgroups, agent process and lifetime."""

import asyncio
import contextlib
import datetime as dt
import json
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .config import Template
from .isolation import bwrap
from .isolation.cgroups import Group
from .isolation.host import Host
from .isolation.rootfs import Rootfs
from .link import GuestError, GuestLink, LinkError

ENVD_VERSION: Final = "0.6.1"  # what is implemented: octet-stream uploads, no file metadata
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0
_BACKLOG: Final = 256
_log = logging.getLogger(__name__)


class StartError(Exception):
    """The sandbox's agent did not come up."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a sandbox is created with, checked. ``timeout`` is its lifetime in seconds."""

    template: Template
    timeout: int
    metadata: Mapping[str, str]
    envs: Mapping[str, str]
    pause_on_timeout: bool = False
    secure: bool = True
    public_traffic: bool = True


@dataclass(slots=True)
class Sandbox:
    """A running or paused sandbox. ``on_end`` is called once when its processes are gone."""

    sandbox_id: str
    request: Request
    token: str
    traffic_token: str
    directory: Path
    group: Group
    started: dt.datetime
    end: dt.datetime
    host_uid: int | None
    link: GuestLink = field(init=False)
    state: str = "running"
    end_reason: str = ""
    process: asyncio.subprocess.Process | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.link = GuestLink(self.directory / "agent.sock")

    @property
    def alive(self) -> bool:
        """Whether requests can be sent inside."""
        return self.state == "running" and not self.ended.is_set()

    def set_lifetime(self, seconds: float) -> None:
        """Let the sandbox live this long from now."""
        self.end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)

    async def launch(self, host: Host, rootfs: Rootfs, pids: int) -> None:
        """Start the agent and wait until it answers."""
        _make_directories(self.directory, rootfs.skeleton, self.host_uid)
        listener = _listen(self.link.path)
        try:
            await self._spawn(host, rootfs, listener.fileno(), pids)
        finally:
            listener.close()
        try:
            await self.link.call(
                "init", timeout_seconds=_START_SECONDS, envs=dict(self.request.envs)
            )
        except (LinkError, GuestError) as error:
            raise StartError(f"{error}; {await self._last_words()}") from error

    async def _spawn(self, host: Host, rootfs: Rootfs, listener: int, pids: int) -> None:
        limited = host.cgroups.controllers
        command = bwrap.command(
            host.bwrap,
            rootfs,
            self.directory,
            self.group,
            listener,
            disable_userns=host.disable_userns,
            memory_kib=None if "memory" in limited else self.request.template.memory_mib * 1024,
            max_processes=pids,
        )
        log = os.open(self.directory / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={},
                cwd="/",
                pass_fds=(*command.descriptors, listener),
                user=self.host_uid,
                group=self.host_uid,
                extra_groups=None if self.host_uid is None else [],
                start_new_session=True,
            )
        finally:
            os.close(log)
            command.close()
        _record(self.directory, self.process.pid, self.group)

    async def _last_words(self) -> str:
        """The end of the agent's own log, for a message when it does not start."""
        with contextlib.suppress(OSError):
            text = (self.directory / "agent.log").read_text(errors="replace").strip()
            return f"the agent said: {text[-500:]}" if text else "the agent said nothing"
        return "the agent left no log"

    async def watch(self, on_end: Callable[["Sandbox"], None]) -> None:
        """Wait for the end of the sandbox's processes and remove what it leaves."""
        if self.process is None:
            raise RuntimeError("watch() before launch()")
        await self.process.wait()
        self.state = "stopping"
        if not self.end_reason:
            self.end_reason = "its processes ended"
        try:
            await self.clean()
        finally:  # whatever stays behind, nobody may wait for it for ever
            self.ended.set()
            on_end(self)

    async def stop(self, reason: str) -> None:
        """Kill every process; returns when all is removed."""
        if not self.end_reason:
            self.end_reason = reason
        self.state = "stopping"
        with contextlib.suppress(OSError):
            self.group.freeze(frozen=False)
        if self.process and self.process.returncode is None:
            # bubblewrap dies and takes its child, pid 1 of the sandbox, and so all others along.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.ended.wait()

    async def clean(self) -> None:
        """Remove the cgroups and the folder."""
        if not await self.group.remove(_STOP_SECONDS):
            _log.error("cgroups could not be removed", extra={"sandbox": self.sandbox_id})
        await remove_tree(self.directory)

    def set_paused(self, *, paused: bool) -> bool:
        """Freeze or thaw all processes; False where this host has no freezer."""
        if not self.group.freeze(frozen=paused):
            return False
        self.state = "paused" if paused else "running"
        return True


def _make_directories(directory: Path, skeleton: Path, uid: int | None) -> None:
    directory.mkdir(mode=0o711)
    shutil.copytree(skeleton, directory / "home")
    (directory / "tmp").mkdir()
    if uid is not None:
        for path in (directory / "home", *(directory / "home").rglob("*"), directory / "tmp"):
            os.chown(path, uid, uid)
    (directory / "home").chmod(0o700)
    (directory / "tmp").chmod(0o700)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks: with the pid it names one process for ever."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _record(directory: Path, pid: int, group: Group) -> None:
    cgroups = {controller: str(path) for controller, path in group.paths.items()}
    note = {"pid": pid, "start_time": start_time(pid), "cgroups": cgroups}
    (directory / "process.json").write_text(json.dumps(note), encoding="utf-8")


async def remove_tree(directory: Path) -> None:
    """Remove a sandbox's folder, also where its user took away rights on folders.

    By rm: shutil recurses and keeps a descriptor for each level, which a user's deep tree exhausts.
    """
    for command in (("rm", "-rf"), ("chmod", "-R", "u+rwx"), ("rm", "-rf")):
        process = await asyncio.create_subprocess_exec(
            *command, "--", str(directory), env={}, stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait() == 0 and command[0] == "rm":
            return
    _log.error("folder could not be removed", extra={"sandbox": directory.name})


async def kill_leftover(directory: Path) -> None:
    """Kill what an earlier daemon noted, if it still is the same process, and its cgroups."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        note = json.loads((directory / "process.json").read_text(encoding="utf-8"))
        if note["start_time"] and start_time(note["pid"]) == note["start_time"]:
            os.killpg(note["pid"], signal.SIGKILL)
        paths = {controller: Path(path) for controller, path in note["cgroups"].items()}
        own = {name: path for name, path in paths.items() if path.name == directory.name}
        await Group(own).remove()
    await remove_tree(directory)
