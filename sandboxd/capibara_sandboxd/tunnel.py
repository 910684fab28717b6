"""An aiohttp connector whose connections lead to a port inside a sandbox."""

import asyncio
import socket
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .guest import frames
from .link import GuestLink, LinkError, raise_error

_HEADER_BYTES = 5


class Tunnel(aiohttp.BaseConnector):
    """Connects to the agent's unix socket and asks it for the port before HTTP begins."""

    def __init__(self, link: GuestLink, port: int) -> None:
        super().__init__(force_close=True)
        self._link = link
        self._port = port

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        raw = socket.socket(socket.AF_UNIX)
        raw.setblocking(False)
        try:
            await loop.sock_connect(raw, str(self._link.path))
            await loop.sock_sendall(raw, frames.pack_json({"op": "tunnel", "port": self._port}))
            header = await _receive(loop, raw, _HEADER_BYTES)
            payload = await _receive(loop, raw, int.from_bytes(header[1:], "big"))
            raise_error(frames.parse_json(frames.Frame(header[0], payload)))
            joined = await loop.create_connection(self._factory, sock=raw)
        except BaseException as error:
            raw.close()
            if isinstance(error, (OSError, frames.FrameError)):
                raise LinkError(f"no way to port {self._port} of the sandbox: {error}") from error
            raise
        return joined[1]


async def _receive(loop: asyncio.AbstractEventLoop, raw: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes: what follows belongs to the HTTP connection."""
    if size > 64 * 1024:
        raise LinkError("the sandbox's agent sent too long an answer")
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(raw, size - len(data))
        if not piece:
            raise LinkError("the sandbox's agent closed the connection")
        data += piece
    return data
