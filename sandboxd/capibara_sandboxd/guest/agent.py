"""The agent: answers the daemon's operations inside the sandbox's own namespaces.

It accepts on a unix socket that the daemon bound and handed over as a file descriptor, so
that nothing in the sandbox can put another socket in its place.
"""

import asyncio
import base64
import binascii
import contextlib
import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from . import filesystem, frames
from .faults import OpError
from .interpreter import Interpreter
from .processes import Processes
from .session import Session

_PR_SET_DUMPABLE: Final = 4


class Agent:
    """One connection, one operation; ``_OPERATIONS`` names what is understood."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._processes = Processes(session)
        self.interpreter = Interpreter(session)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            await self._serve(reader, writer)
        except (ConnectionError, frames.FrameError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await frames.read_frame(reader)
        if first is None:
            return
        request = frames.parse_json(first)
        operation = getattr(self, f"_op_{request.get('op')}", None)
        try:
            await (operation or _unknown)(request, reader, writer)
        except OpError as error:
            writer.write(_refused(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what = f"the request is malformed: {type(error).__name__}"
            writer.write(_refused(OpError("invalid_argument", what)))
        await writer.drain()

    async def _stream(
        self,
        events: AsyncIterator[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        async def send() -> None:
            async for chunk in events:
                writer.write(chunk)
                await writer.drain()

        sender = asyncio.ensure_future(send())
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not sender.done():
            sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender

    async def _op_init(self, request: dict[str, Any], _: object, writer: Any) -> None:
        self._session.envs = dict(request.get("envs") or {})
        writer.write(frames.pack_json({"ok": True}))

    async def _op_start(self, request: dict[str, Any], reader: Any, writer: Any) -> None:
        await self._stream(self._processes.start(request), reader, writer)

    async def _op_connect(self, request: dict[str, Any], reader: Any, writer: Any) -> None:
        await self._stream(self._processes.connect(request), reader, writer)

    async def _op_processes(self, _request: object, _: object, writer: Any) -> None:
        writer.write(frames.pack_json({"processes": self._processes.running()}))

    async def _op_input(self, request: dict[str, Any], _: object, writer: Any) -> None:
        process = self._processes.find(request)
        try:
            data = base64.b64decode(request.get("stdin") or "", validate=True)
        except (binascii.Error, TypeError) as error:
            raise OpError("invalid_argument", "the input is not base64") from error
        await self._processes.feed(process, data)
        writer.write(frames.pack_json({}))

    async def _op_close_stdin(self, request: dict[str, Any], _: object, writer: Any) -> None:
        self._processes.close_stdin(self._processes.find(request))
        writer.write(frames.pack_json({}))

    async def _op_signal(self, request: dict[str, Any], _: object, writer: Any) -> None:
        self._processes.send_signal(self._processes.find(request), int(request["number"]))
        writer.write(frames.pack_json({}))

    async def _op_stat(self, request: dict[str, Any], _: object, writer: Any) -> None:
        path = self._session.resolve(request["path"])
        writer.write(frames.pack_json({"entry": filesystem.stat_path(path)}))

    async def _op_list_dir(self, request: dict[str, Any], _: object, writer: Any) -> None:
        path = self._session.resolve(request["path"])
        depth = int(request.get("depth") or 0)
        entries = await asyncio.to_thread(filesystem.list_dir, path, depth)
        writer.write(frames.pack_json({"entries": entries}))

    async def _op_make_dir(self, request: dict[str, Any], _: object, writer: Any) -> None:
        path = self._session.resolve(request["path"])
        writer.write(frames.pack_json({"entry": filesystem.make_dir(path)}))

    async def _op_move(self, request: dict[str, Any], _: object, writer: Any) -> None:
        source = self._session.resolve(request["source"])
        destination = self._session.resolve(request["destination"])
        entry = await asyncio.to_thread(filesystem.move, source, destination)
        writer.write(frames.pack_json({"entry": entry}))

    async def _op_remove(self, request: dict[str, Any], _: object, writer: Any) -> None:
        await asyncio.to_thread(filesystem.remove, self._session.resolve(request["path"]))
        writer.write(frames.pack_json({}))

    async def _op_disk(self, _request: object, _: object, writer: Any) -> None:
        writer.write(frames.pack_json(filesystem.disk_usage(self._session.home)))

    async def _op_read(self, request: dict[str, Any], _: object, writer: Any) -> None:
        path = self._session.resolve(request["path"])
        descriptor = filesystem.open_for_reading(path)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            writer.write(frames.pack_json({"size": size, "path": path}))
            while data := file.read(frames.CHUNK_BYTES):
                writer.write(frames.pack(frames.DATA, data))
                await writer.drain()
        writer.write(frames.pack(frames.DATA, b""))

    async def _op_write(self, request: dict[str, Any], reader: Any, writer: Any) -> None:
        path = self._session.resolve(request["path"])
        descriptor = filesystem.open_for_writing(path)
        try:
            while (frame := await frames.read_frame(reader)) is not None and frame.payload:
                filesystem.write_all(descriptor, frame.payload, path)
        finally:
            os.close(descriptor)
        writer.write(frames.pack_json({"entry": filesystem.entry(path)}))

    async def _op_tunnel(self, request: dict[str, Any], reader: Any, writer: Any) -> None:
        """Join the connection with a port of the sandbox; bytes flow as they are."""
        port = int(request["port"])
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise OpError("unavailable", f"port {port} is not open") from error
        writer.write(frames.pack_json({"ok": True}))
        try:
            async with asyncio.TaskGroup() as group:
                back = group.create_task(_copy(inner, writer))
                there = group.create_task(_copy(reader, outer))
                await asyncio.wait((back, there), return_when=asyncio.FIRST_COMPLETED)
                back.cancel()
                there.cancel()
        finally:
            outer.close()


def _refused(error: OpError) -> bytes:
    return frames.pack_json({"error": {"code": error.code, "message": str(error)}})


async def _unknown(request: dict[str, Any], _reader: object, _writer: object) -> None:
    raise OpError("unimplemented", f"no operation {request.get('op')!r}")


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(frames.CHUNK_BYTES):
            target.write(data)
            await target.drain()


def _session(options: dict[str, Any]) -> Session:
    return Session(
        home=options["home"],
        user=options["user"],
        path=options["path"],
        python=options["python"],
        site_packages=tuple(options["site_packages"]),
    )


async def _serve(options: dict[str, Any]) -> None:
    agent = Agent(_session(options))
    listener = socket.socket(fileno=int(options["fd"]))
    server = await asyncio.start_unix_server(agent.handle, sock=listener)
    await agent.interpreter.listen()
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the agent with the options given as JSON in the first argument."""
    options = json.loads(sys.argv[1])
    # Code of the same user must not read the agent's memory or take its descriptors.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    # Inside our user namespace: outside of it the count is shared with other sandboxes.
    limit = int(options["max_processes"])
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    asyncio.run(_serve(options))
