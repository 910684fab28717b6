"""What a supervisor runs: components, the order between them, and how to see that one is ready."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import urllib.parse
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

_PROBE_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Probe:
    """How readiness is seen: an HTTP(S) URL that answers 200, or a socket that accepts.

    Args:
        url: http, https, tcp (`tcp://host:port`) or unix (`unix:///path`).
        authority: certificate file that an https server's certificate is checked against.
        certificate: client certificate, where the server asks for one.
        key: the client certificate's key.
    """

    url: str
    authority: str = ""
    certificate: str = ""
    key: str = ""

    def passes(self) -> bool:
        """Whether the component answers as it should now."""
        parts = urllib.parse.urlsplit(self.url)
        try:
            match parts.scheme:
                case "unix":
                    return _unix_accepts(parts.path)
                case "tcp":
                    address = (parts.hostname or "", parts.port or 0)
                    socket.create_connection(address, _PROBE_TIMEOUT_SECONDS).close()
                    return True
                case _:
                    return self._answers_ok(parts)
        except (OSError, http.client.HTTPException):
            return False

    def _answers_ok(self, parts: urllib.parse.SplitResult) -> bool:
        with contextlib.closing(self._connection(parts)) as connection:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status == http.HTTPStatus.OK

    def _connection(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_SECONDS)
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return http.client.HTTPSConnection(
            host, port, timeout=_PROBE_TIMEOUT_SECONDS, context=context
        )


def _unix_accepts(path: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(_PROBE_TIMEOUT_SECONDS)
        connection.connect(path)
    return True


@dataclass(frozen=True, slots=True)
class Component:
    """One process of a cluster.

    Args:
        name: also the name of its log file.
        argv: command line; the program as an absolute path.
        after: names of the components that have to be ready before this one starts.
        ready: how readiness is seen; None = ready once started.
        env: added to the supervisor's environment.
    """

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    ready: Probe | None = None
    env: dict[str, str] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Self:
        """The inverse of `dump`."""
        ready = stored["ready"]
        return cls(
            name=stored["name"],
            argv=tuple(stored["argv"]),
            after=tuple(stored["after"]),
            ready=None if ready is None else Probe(**ready),
            env=stored["env"],
        )
