"""One probe of an endpoint over plain HTTP, careful about whom it talks to."""

import errno
from contextlib import suppress
from types import SimpleNamespace
from typing import Final

import aiohttp
from yarl import URL

from capibara_operator.core.services.probing import BODY_LIMIT_BYTES, Address, Check, Outcome

_HEADERS: Final = {"User-Agent": "capibara-operator-probe", "Accept-Encoding": "identity"}
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT})


class ProbeClient:
    """Asks one endpoint at one address.

    Follows no redirect, uses no proxy, keeps no cookies and no connection, and reads at most
    64 KiB of an answer. Never raises for what the other side does.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, check: Check, address: Address) -> Outcome:
        """Probe once; ends within the check's timeout."""
        trace = SimpleNamespace(connected=False)
        try:
            return await self._request(check, address, trace)
        except TimeoutError:
            return Outcome("Timeout", reached=trace.connected)
        except aiohttp.ServerDisconnectedError:
            return Outcome("Disconnected")
        except aiohttp.ClientOSError as error:
            return _failed(error.errno, connected=trace.connected)
        except (aiohttp.ClientError, ValueError):
            return Outcome("InvalidResponse", reached=trace.connected)

    async def aclose(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, check: Check, address: Address, trace: SimpleNamespace) -> Outcome:
        host = f"[{address.ip}]" if ":" in address.ip else address.ip
        async with self._opened().request(
            check.method,
            URL(f"http://{host}:{address.port}{check.path}"),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=check.timeout),
            trace_request_ctx=trace,
        ) as response:
            if not _expected(response.status, check.statuses):
                return Outcome(f"HTTP{response.status}")
            if check.body_contains and not await _contains(response.content, check.body_contains):
                return Outcome("UnexpectedBody")
            return Outcome()

    def _opened(self) -> aiohttp.ClientSession:
        # A session binds itself to the running loop, so it is made on first use.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
                trace_configs=[_connection_trace()],
            )
        return self._session


def _expected(status: int, statuses: frozenset[int]) -> bool:
    return status in statuses if statuses else 200 <= status < 400


def _connection_trace() -> aiohttp.TraceConfig:
    """Notes in the request's context that its connection was made."""
    config = aiohttp.TraceConfig()

    async def connected(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceConnectionCreateEndParams,
    ) -> None:
        context.trace_request_ctx.connected = True

    config.on_connection_create_end.append(connected)
    return config


def _failed(number: int | None, *, connected: bool) -> Outcome:
    if number == errno.ECONNREFUSED:
        return Outcome("ConnectionRefused")
    if number == errno.ECONNRESET:
        return Outcome("ConnectionReset")
    if number in _UNREACHABLE:
        return Outcome("Unreachable", reached=False)
    return Outcome("ConnectionFailed", reached=connected)


async def _contains(stream: aiohttp.StreamReader, text: str) -> bool:
    """Whether the first 64 KiB of a body contain a text."""
    needle, body = text.encode(), bytearray()
    with suppress(aiohttp.ClientPayloadError):
        while len(body) < BODY_LIMIT_BYTES:
            piece = await stream.read(BODY_LIMIT_BYTES - len(body))
            if not piece:
                break
            body += piece
            if needle in body:
                return True
    return needle in body
