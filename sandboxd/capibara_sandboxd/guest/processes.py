"""Processes of the sandbox: start, follow, feed, signal."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from . import frames
from .faults import OpError, from_os_error
from .session import Session

_FINISHED_KEPT_SECONDS: Final = 30.0
_QUEUE_CHUNKS: Final = 32
_USER_OOM_SCORE: Final = "1000"


class Subscriber:
    """One follower of a process. A full queue holds the process back; a closed one does not."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = asyncio.Condition()
        self._closed = False

    async def put(self, chunk: bytes) -> None:
        """Hand over one encoded frame, waiting while the follower is slow."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._chunks) < _QUEUE_CHUNKS)
            if not self._closed:
                self._chunks.append(chunk)
                self._changed.notify_all()

    async def get(self) -> bytes:
        """Take the next frame."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._chunks))
            self._changed.notify_all()
            return self._chunks.popleft()

    async def close(self) -> None:
        """Stop taking part."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(slots=True)
class Process:
    """A started command and who follows it."""

    config: dict[str, Any]
    tag: str | None
    child: asyncio.subprocess.Process
    stdin_open: bool
    followers: list[Subscriber] = field(default_factory=list)
    deadline: asyncio.TimerHandle | None = None
    end: bytes | None = None
    expired: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """The pid inside the sandbox; also the process group's."""
        return self.child.pid

    def kill(self, number: int) -> None:
        """Signal the command and its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def publish(self, chunk: bytes) -> None:
        """Give a frame to every follower."""
        for follower in tuple(self.followers):
            await follower.put(chunk)


def _end_event(process: Process, code: int) -> bytes:
    if process.expired.is_set():
        error = {"code": "deadline_exceeded", "message": "the command's timeout was reached"}
        return frames.pack_json({"error": error})
    if code < 0:
        name = signal.strsignal(-code) or str(-code)
        status = f"signal: {name.lower()}"
        return frames.pack_json(
            {"end": {"exitCode": -1, "exited": False, "status": status, "error": status}}
        )
    end: dict[str, Any] = {"exitCode": code, "exited": True, "status": f"exit status {code}"}
    if code:
        end["error"] = end["status"]
    return frames.pack_json({"end": end})


class Processes:
    """All commands started through the API, by pid."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[int, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, request: dict[str, Any]) -> AsyncIterator[bytes]:
        """Start a command; yields the start, its output and the end as encoded frames."""
        config = request.get("process") or {}
        child = await self._spawn(config, stdin=bool(request.get("stdin", True)))
        process = Process(config, request.get("tag"), child, child.stdin is not None)
        self._known[process.pid] = process
        follower = self._follow(process)
        timeout_ms = request.get("timeout_ms")
        if timeout_ms:
            loop = asyncio.get_running_loop()
            process.deadline = loop.call_later(timeout_ms / 1000, self._expire, process)
        task = asyncio.create_task(self._run(process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async for chunk in self._events(process, follower):
            yield chunk

    async def connect(self, request: dict[str, Any]) -> AsyncIterator[bytes]:
        """Follow a command that was started before; nothing is replayed but its end."""
        process = self.find(request)
        async for chunk in self._events(process, self._follow(process)):
            yield chunk

    def find(self, request: dict[str, Any]) -> Process:
        """The process that a ``ProcessSelector`` names."""
        selector = request.get("process") or {}
        pid, tag = selector.get("pid"), selector.get("tag")
        for process in self._known.values():
            if process.pid == pid or (tag is not None and process.tag == tag):
                return process
        raise OpError("not_found", f"process {pid if tag is None else tag!r} not found")

    def running(self) -> list[dict[str, Any]]:
        """Every command that has not ended, as ``ProcessInfo`` objects."""
        return [
            {"config": process.config, "pid": process.pid}
            | ({"tag": process.tag} if process.tag is not None else {})
            for process in self._known.values()
            if process.end is None
        ]

    async def feed(self, process: Process, data: bytes) -> None:
        """Write to a command's standard input."""
        stdin = process.child.stdin
        if stdin is None or not process.stdin_open or process.end is not None:
            raise OpError("failed_precondition", "the command's standard input is not open")
        try:
            stdin.write(data)
            await stdin.drain()
        except ConnectionError as error:
            raise OpError("failed_precondition", "the command closed its input") from error

    def close_stdin(self, process: Process) -> None:
        """End a command's standard input."""
        if process.child.stdin is None:
            raise OpError("failed_precondition", "the command was started without input")
        process.stdin_open = False
        process.child.stdin.close()

    def send_signal(self, process: Process, number: int) -> None:
        """Signal a running command."""
        if process.end is not None:
            raise OpError("not_found", f"process {process.pid} has ended")
        process.kill(number)

    async def _spawn(self, config: dict[str, Any], *, stdin: bool) -> asyncio.subprocess.Process:
        cwd = self._session.directory(config.get("cwd"))
        argv = [config.get("cmd") or "", *(config.get("args") or [])]
        if not argv[0]:
            raise OpError("invalid_argument", "the command is empty")
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=cwd,
                env=self._session.environment(config.get("envs")),
                start_new_session=True,
            )
        except OSError as error:
            raise from_os_error(error, f"cannot start {argv[0]}") from error
        except ValueError as error:
            raise OpError("invalid_argument", str(error)) from error
        mark_expendable(child.pid)
        return child

    def _follow(self, process: Process) -> Subscriber:
        follower = Subscriber()
        if process.end is None:
            process.followers.append(follower)
        return follower

    async def _events(self, process: Process, follower: Subscriber) -> AsyncIterator[bytes]:
        yield frames.pack_json({"start": {"pid": process.pid}})
        if follower not in process.followers:
            yield process.end or b""
            return
        try:
            while (chunk := await follower.get()) is not process.end:
                yield chunk
            yield chunk
        finally:
            if follower in process.followers:
                process.followers.remove(follower)
            await follower.close()

    async def _run(self, process: Process) -> None:
        child = process.child
        output = asyncio.gather(
            self._pump(process, child.stdout, frames.STDOUT),
            self._pump(process, child.stderr, frames.STDERR),
        )
        expiry = asyncio.ensure_future(process.expired.wait())
        # A grandchild may hold the output open: that delays the end, but not beyond the deadline.
        await asyncio.wait((output, expiry), return_when=asyncio.FIRST_COMPLETED)
        expiry.cancel()
        code = await child.wait()
        output.cancel()
        if process.deadline:
            process.deadline.cancel()
        process.end = _end_event(process, code)
        await process.publish(process.end)
        await asyncio.sleep(_FINISHED_KEPT_SECONDS)
        if self._known.get(process.pid) is process:
            del self._known[process.pid]

    async def _pump(self, process: Process, stream: asyncio.StreamReader | None, kind: int) -> None:
        while stream and (data := await stream.read(frames.CHUNK_BYTES)):
            await process.publish(frames.pack(kind, data))

    def _expire(self, process: Process) -> None:
        process.expired.set()
        process.kill(signal.SIGKILL)


def mark_expendable(pid: int) -> None:
    """Let the kernel kill this process before the agent when memory runs out."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(_USER_OOM_SCORE, encoding="ascii")
