"""Jupyter kernels of the code interpreter, one per context."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.connect import write_connection_file

from .mime import events_of
from .processes import mark_expendable
from .session import Session

_READY_SECONDS: Final = 60.0
_INTERRUPT_SECONDS: Final = 5.0
_REPLY_SECONDS: Final = 5.0
_WELCOME_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.005
_CHANNELS: Final = 5
_MAIN: Final = (
    "import sys; sys.path.append(sys.argv[1]); from guest.kernel_main import main; main()"
)

Event = dict[str, Any]
Events = asyncio.Queue[Event | None]


class KernelLostError(Exception):
    """The kernel's process ended, or it does not react any more."""


class Kernel:
    """A context: one kernel process, one execution at a time."""

    def __init__(self, session: Session, context_id: str, language: str, cwd: str) -> None:
        self.context_id = context_id
        self._session = session
        self._language = language
        self._cwd = cwd
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._client: AsyncKernelClient | None = None
        self._directory = ""

    def describe(self) -> dict[str, str]:
        """The context as the API shows it."""
        return {"id": self.context_id, "language": self._language, "cwd": self._cwd}

    async def execute(self, code: str, env: Mapping[str, str], events: Events) -> None:
        """Run code and put what it emits into ``events``; None comes last.

        Cancelling interrupts the kernel. A kernel that dies is replaced, and an error says so.
        """
        async with self._lock:
            try:
                await self._execute(code, env, events)
            except (KernelLostError, TimeoutError, OSError) as error:
                await self.stop()
                await events.put(
                    {
                        "type": "error",
                        "name": "ContextRestarting",
                        "value": f"The kernel was lost, its variables are gone: {error}",
                        "traceback": "",
                    }
                )
        await events.put(None)

    async def restart(self) -> None:
        """Replace the kernel by a fresh one; what runs in the old one ends with an error."""
        await self.stop()
        async with self._lock:
            await self._ensure()

    async def stop(self) -> None:
        """Kill the kernel."""
        client, self._client = self._client, None
        process, self._process = self._process, None
        if client:
            client.stop_channels()
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _execute(self, code: str, env: Mapping[str, str], events: Events) -> None:
        await self._ensure()
        if env:
            await self._silent(
                f"__import__('guest.kernel_main').kernel_main.enter({json.dumps(dict(env))!r})"
            )
        async for message in self._request(code):
            for event in events_of(message):
                await events.put(event)
        if env:
            await self._silent("__import__('guest.kernel_main').kernel_main.leave()")

    async def _silent(self, code: str) -> None:
        async for _ in self._request(code, silent=True):
            pass

    async def _ensure(self) -> AsyncKernelClient:
        if self._process is None or self._process.returncode is not None or self._client is None:
            await self.stop()
            self._client = await self._start()
        return self._client

    async def _start(self) -> AsyncKernelClient:
        self._directory, file = _new_connection()
        process = self._process = await self._spawn(file)
        mark_expendable(process.pid)
        client = AsyncKernelClient(connection_file=file)
        client.load_connection_file()
        async with asyncio.timeout(_READY_SECONDS):
            while _sockets(self._directory) < _CHANNELS:
                _check_alive(process)
                await asyncio.sleep(_POLL_SECONDS)
            client.start_channels(  # noqa: S604  the name of a channel
                shell=True,
                iopub=True,
                stdin=False,
                hb=False,
                control=False,
            )
            await _wait_subscribed(client, process)
        return client

    async def _spawn(self, file: str) -> asyncio.subprocess.Process:
        root = str(Path(__file__).parents[1])
        # -P: a file of the user must not stand in for a module that the kernel imports.
        command = [self._session.python, "-P", "-c", _MAIN, root, file]
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self._cwd,
            env=self._session.environment(),
            start_new_session=True,
        )

    async def _request(self, code: str, *, silent: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Execute code; yields its messages until the kernel is idle again."""
        client, process = self._client, self._process
        if client is None or process is None:
            raise KernelLostError("it was stopped")
        message_id = client.execute(code, silent=silent, allow_stdin=False)
        try:
            async for message in _messages(client, process, message_id):
                yield message
        except asyncio.CancelledError:
            await self._interrupt(client, process, message_id)
            raise
        await client.get_shell_msg(timeout=_REPLY_SECONDS)

    async def _interrupt(
        self, client: AsyncKernelClient, process: asyncio.subprocess.Process, message_id: str
    ) -> None:
        """Break off an execution; a kernel that ignores it is killed."""
        try:
            os.killpg(process.pid, signal.SIGINT)
            async with asyncio.timeout(_INTERRUPT_SECONDS):
                async for _ in _messages(client, process, message_id):
                    pass
                await client.get_shell_msg(timeout=_REPLY_SECONDS)
        except (KernelLostError, TimeoutError, OSError):
            await self.stop()


def _new_connection() -> tuple[str, str]:
    """A folder for a kernel's sockets, and the connection file in it."""
    directory = tempfile.mkdtemp(prefix="kernel-", dir="/run")
    file = str(Path(directory) / "connection.json")
    # Unix sockets: no port to race for, and a connect does not retry in steps of 100 ms.
    write_connection_file(file, transport="ipc", ip=str(Path(directory) / "s"))
    return directory, file


def _sockets(directory: str) -> int:
    return sum(1 for _ in Path(directory).glob("s-*"))


def _check_alive(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        how = f"signal {-process.returncode}" if process.returncode < 0 else "exit"
        raise KernelLostError(f"its process ended ({how}, code {process.returncode})")


async def _wait_subscribed(client: AsyncKernelClient, process: asyncio.subprocess.Process) -> None:
    """Wait until the kernel's output reaches us: what it sends before that is lost."""
    while True:
        _check_alive(process)
        message_id = client.kernel_info()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WELCOME_SECONDS):
                async for _ in _messages(client, process, message_id):
                    pass
                await client.get_shell_msg(timeout=_WELCOME_SECONDS)
                return


async def _messages(
    client: AsyncKernelClient, process: asyncio.subprocess.Process, message_id: str
) -> AsyncIterator[dict[str, Any]]:
    """Output of one request until the kernel says that it is idle; raises when it dies."""
    died = asyncio.ensure_future(process.wait())
    receiving: asyncio.Future[Any] | None = None
    try:
        while True:
            receiving = asyncio.ensure_future(client.get_iopub_msg(timeout=None))
            await asyncio.wait((receiving, died), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                _check_alive(process)
            message = await receiving
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return
            yield message
    finally:
        died.cancel()
        if receiving:
            receiving.cancel()
