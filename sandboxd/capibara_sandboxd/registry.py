"""All sandboxes of this daemon: create, find, expire, kill."""

import asyncio
import contextlib
import datetime as dt
import logging
import secrets
import string
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from . import metrics
from .config import Settings
from .isolation import host as hosts
from .isolation.cgroups import Group, Limits
from .isolation.rootfs import Rootfs
from .link import LinkError
from .sandbox import Request, Sandbox, StartError, kill_leftover

_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_ID_LENGTH: Final = 20
_log = logging.getLogger(__name__)


class CapacityError(Exception):
    """The number of sandboxes is at its limit."""


class Registry:
    """Owner of every sandbox; one per state directory."""

    def __init__(self, settings: Settings, host: hosts.Host, rootfs: Rootfs) -> None:
        self.settings = settings
        self.host = host
        self._rootfs = rootfs
        self._sandboxes: dict[str, Sandbox] = {}
        self._starting = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._closing = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._directory = settings.state_dir / "sandboxes"
        self._uids = list(range(hosts.FIRST_HOST_UID, hosts.FIRST_HOST_UID + hosts.HOST_UIDS))

    def get(self, sandbox_id: str) -> Sandbox | None:
        """A sandbox that has not ended."""
        return self._sandboxes.get(sandbox_id)

    def all(self) -> Iterable[Sandbox]:
        """Every running or paused sandbox."""
        return tuple(self._sandboxes.values())

    async def create(self, request: Request) -> Sandbox:
        """Start a sandbox; it is running when this returns."""
        if self._closing:
            raise LinkError("sandboxd is shutting down")
        if len(self._sandboxes) + self._starting >= self.settings.max_sandboxes:
            raise CapacityError(
                "you have reached the maximum number of concurrent E2B sandboxes "
                f"({self.settings.max_sandboxes})"
            )
        self._starting += 1
        self._settled.clear()
        began = time.perf_counter()
        try:
            sandbox = await self._start(request)
        finally:
            self._starting -= 1
            if not self._starting:
                self._settled.set()
        metrics.CREATE_SECONDS.observe(time.perf_counter() - began)
        metrics.RUNNING.inc()
        self._sandboxes[sandbox.sandbox_id] = sandbox
        self._spawn(sandbox.watch(self._forget))
        self.schedule(sandbox)
        _log.info("sandbox created", extra={"sandbox": sandbox.sandbox_id})
        return sandbox

    def schedule(self, sandbox: Sandbox) -> None:
        """Arm the timer of a sandbox's end; call it after each change of the end."""
        timer = self._timers.pop(sandbox.sandbox_id, None)
        if timer:
            timer.cancel()
        if sandbox.state == "running":
            left = sandbox.end - dt.datetime.now(dt.UTC)
            delay = max(0.0, left.total_seconds())
            loop = asyncio.get_running_loop()
            self._timers[sandbox.sandbox_id] = loop.call_later(delay, self._expire, sandbox)

    async def kill(self, sandbox: Sandbox, reason: str) -> None:
        """Destroy a sandbox; returns when nothing of it is left."""
        await sandbox.stop(reason)

    async def recover(self) -> None:
        """Remove what a daemon that was killed left in this state directory."""
        self._directory.mkdir(mode=0o711, exist_ok=True)
        for group in self.host.cgroups.leftovers().values():
            await group.remove()
        for directory in self._directory.iterdir():
            _log.warning("leftover removed", extra={"sandbox": directory.name})
            await kill_leftover(directory)

    async def close(self) -> None:
        """Kill every sandbox and free what they used."""
        self._closing = True
        await self._settled.wait()  # what is starting must not come up unseen
        await asyncio.gather(*(self.kill(sandbox, "shutdown") for sandbox in self.all()))
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.host.cgroups.close()

    async def _start(self, request: Request) -> Sandbox:
        sandbox = self._new(request)
        try:
            await sandbox.launch(self.host, self._rootfs, self.settings.pids)
        except BaseException as error:
            metrics.START_FAILURES.inc()
            self._spawn(self._discard(sandbox))
            if isinstance(error, OSError):
                raise StartError(f"the sandbox could not be started: {error}") from error
            raise
        return sandbox

    def _new(self, request: Request) -> Sandbox:
        sandbox_id = "i" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH - 1))
        limits = Limits(request.template.memory_mib, request.template.cpus, self.settings.pids)
        now = dt.datetime.now(dt.UTC)
        group = Group()
        try:
            group = self.host.cgroups.create(sandbox_id, limits)
        except OSError as error:
            raise StartError(f"the sandbox's limits could not be set: {error}") from error
        return Sandbox(
            sandbox_id,
            request,
            secrets.token_hex(32) if request.secure else "",
            secrets.token_hex(32),
            self._directory / sandbox_id,
            group,
            now,
            now + dt.timedelta(seconds=request.timeout),
            self._uids.pop(secrets.randbelow(len(self._uids))) if self.host.own_uids else None,
        )

    async def _discard(self, sandbox: Sandbox) -> None:
        """Remove a sandbox that did not come up."""
        if sandbox.process:
            self._spawn(sandbox.watch(self._free))
            await sandbox.stop("start failed")
        else:
            await sandbox.clean()
            self._free(sandbox)

    def _free(self, sandbox: Sandbox) -> None:
        if sandbox.host_uid is not None:
            self._uids.append(sandbox.host_uid)

    def _forget(self, sandbox: Sandbox) -> None:
        if self._sandboxes.pop(sandbox.sandbox_id, None):
            metrics.RUNNING.dec()
            metrics.ENDED.labels(sandbox.end_reason).inc()
        timer = self._timers.pop(sandbox.sandbox_id, None)
        if timer:
            timer.cancel()
        self._free(sandbox)
        _log.info(
            "sandbox ended",
            extra={"sandbox": sandbox.sandbox_id, "reason": sandbox.end_reason},
        )

    def _expire(self, sandbox: Sandbox) -> None:
        if sandbox.request.pause_on_timeout:
            with contextlib.suppress(OSError):
                if sandbox.set_paused(paused=True):
                    return
        self._spawn(self.kill(sandbox, "timeout"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
