"""A stand-in for a sandbox's code interpreter: it speaks the protocol and executes nothing."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Event = dict[str, Any]


class CodeInterpreter:
    """Answers the runner's preamble, then plays ``events`` for the code itself.

    ``pid`` is the kernel's, as the preamble prints it. The events end with the connection; a
    callable among them is called in its place.
    """

    def __init__(self, events: list[Any], *, pid: int = 0) -> None:
        self.events = events
        self.pid = pid or os.getpid()
        self.codes: list[str] = []
        self.settings: Event = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def play(self, code: str) -> Iterator[Event]:
        self.codes.append(code)
        if len(self.codes) == 1:
            # The path of the settings is the one argument of the preamble's call.
            path = json.loads(code.rsplit("_capibara(", maxsplit=1)[-1].split(")", maxsplit=1)[0])
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:  # noqa: PTH123
                self.settings = json.load(file)
            yield {"type": "stdout", "text": f"{self.pid}\n"}
            yield {"type": "end_of_execution"}
            return
        for event in self.events:
            if callable(event):
                event()
            else:
                yield event

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        interpreter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"OK")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for event in interpreter.play(body["code"]):
                        self.wfile.write(json.dumps(event).encode() + b"\n")
                        self.wfile.flush()
                self.close_connection = True

            def _answer(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        return Handler
