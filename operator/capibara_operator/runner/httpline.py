"""An HTTP request whose answer is read line by line.

``http.client`` would take longer to import than a short job takes to run.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAX_HEADER_LINES = 100


class BadAnswerError(Exception):
    """What came is not HTTP, or broke off."""


class Exchange:
    """One request on a connection of its own. ``timeout`` is in seconds, None for ever."""

    def __init__(
        self, address: tuple[str, int], request: str, body: bytes, timeout: float | None
    ) -> None:
        self._socket = socket.create_connection(address, timeout)
        try:
            head = f"{request} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self._socket.sendall(head.encode("ascii") + body)
            self._stream: BinaryIO = self._socket.makefile("rb")
            self.status, self._chunked = self._head()
        except BaseException:
            self._socket.close()
            raise

    def lines(self) -> Iterator[bytes]:
        """Lines of the body, without their ends, until the server has sent all of it."""
        rest = b""
        for piece in self._pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def _head(self) -> tuple[int, bool]:
        try:
            status = int(self._stream.readline(1024).split()[1])
        except (IndexError, ValueError) as error:
            raise BadAnswerError("not HTTP") from error
        chunked = False
        for _ in range(MAX_HEADER_LINES):
            line = self._stream.readline(8192).strip().lower()
            if not line:
                return status, chunked
            if line.startswith(b"transfer-encoding:"):
                chunked = line.endswith(b"chunked")
        raise BadAnswerError("too many headers")

    def _pieces(self) -> Iterator[bytes]:
        if not self._chunked:
            yield from self._stream
            return
        while True:
            try:
                size = int(self._stream.readline(1024).split(b";")[0], 16)
            except ValueError as error:
                raise BadAnswerError("the answer broke off") from error
            if size == 0:
                return
            piece = self._stream.read(size)
            self._stream.readline(2)
            yield piece
