"""The prober against real HTTP servers on loopback, reached as an operator's setting allows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from capibara_operator.adapters.probe_http import ProbeClient
from capibara_operator.adapters.prober import Prober
from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.core.services.probing import Address, Check, Outcome
from capibara_operator.ports.clock import SystemClock
from capibara_operator.ports.kube import Key

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BACKEND = Key("shop", "backend")
CHUNK = b"x" * 65536


@dataclass
class Server:
    """A server on loopback that speaks as ``talk`` does and counts connections."""

    talk: Talk
    port: int = 0
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Talk], Awaitable[Server]]]:
    async with AsyncExitStack() as stack:

        async def start(talk: Talk) -> Server:
            found = Server(talk)
            server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            found.port = server.sockets[0].getsockname()[1]
            return found

        yield start


@pytest.fixture
async def client() -> AsyncIterator[ProbeClient]:
    found = ProbeClient()
    yield found
    await found.aclose()


def answer(status: str, body: bytes = b"", *headers: str) -> Talk:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join(head).encode() + body)
        await writer.drain()

    return talk


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x00\x01 this is no HTTP\r\n\r\n" * 4)
    await writer.drain()


async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Case:
    reason: str
    talk: Talk
    want: str
    statuses: frozenset[int] = frozenset()
    body_contains: str = ""


CASES = [
    Case("200 is good", answer("200 OK"), ""),
    Case("204 is good", answer("204 No Content"), ""),
    Case("a redirect is an answer", answer("302 Found", b"", "Location: /x"), ""),
    Case("500 is not", answer("500 Internal Server Error"), "HTTP500"),
    Case("404 is not", answer("404 Not Found"), "HTTP404"),
    Case("200 is not 201 where that is asked for", answer("200 OK"), "HTTP200", frozenset({201})),
    Case("503 may be expected", answer("503 Busy"), "", frozenset({200, 503})),
    Case("the text is there", answer("200 OK", b"all is ready"), "", body_contains="ready"),
    Case("the text is not", answer("200 OK", b"no"), "UnexpectedBody", body_contains="ready"),
    Case("no answer in time", hang, "Timeout"),
    Case("headers without an end", drip_headers, "Timeout"),
    Case("a body drop by drop", drip, "Timeout", body_contains="ready"),
    Case("no HTTP", garbage, "InvalidResponse"),
    Case("hangs up without a word", hang_up, "Disconnected"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
async def test_outcomes(case: Case, serve: Any, client: ProbeClient) -> None:
    server = await serve(case.talk)
    check = Check("e", 80, statuses=case.statuses, body_contains=case.body_contains, timeout=0.3)
    async with asyncio.timeout(2):
        outcome = await client.ask(check, Address("127.0.0.1", server.port))
    assert outcome == Outcome(case.want, reached=True)


async def test_a_refused_connection_was_reached(client: ProbeClient) -> None:
    outcome = await client.ask(Check("e", 80, timeout=1), Address("127.0.0.1", _closed_port()))
    assert outcome == Outcome("ConnectionRefused", reached=True)


async def test_no_redirect_is_followed(serve: Any, client: ProbeClient) -> None:
    inner = await serve(answer("200 OK"))
    outer = await serve(answer("302 Found", b"", f"Location: http://127.0.0.1:{inner.port}/"))
    outcome = await client.ask(
        Check("e", 80, statuses=frozenset({200})), Address("127.0.0.1", outer.port)
    )
    assert outcome.reason == "HTTP302"
    assert inner.connections == 0


async def test_no_proxy_of_the_environment_is_used(
    serve: Any, client: ProbeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, target = await serve(answer("200 OK")), await serve(answer("500 No"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    outcome = await client.ask(Check("e", 80), Address("127.0.0.1", target.port))
    assert (outcome.reason, proxy.connections) == ("HTTP500", 0)


async def test_a_long_body_is_read_to_64_kib_only(serve: Any, client: ProbeClient) -> None:
    taken = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
        for _ in range(1024):
            writer.write(CHUNK)
            await writer.drain()
            taken += len(CHUNK)

    server = await serve(flood)
    outcome = await client.ask(
        Check("e", 80, body_contains="y", timeout=5), Address("127.0.0.1", server.port)
    )
    assert outcome.reason == "UnexpectedBody"
    await asyncio.sleep(0.1)
    assert taken < 16 * 1024 * 1024, "socket buffers apart nothing more is taken"


async def test_text_beyond_64_kib_is_not_found(serve: Any, client: ProbeClient) -> None:
    check = Check("e", 80, body_contains="ready", timeout=5)
    late = await serve(answer("200 OK", CHUNK + b"ready" + CHUNK))
    assert (await client.ask(check, Address("127.0.0.1", late.port))).reason == "UnexpectedBody"
    soon = await serve(answer("200 OK", CHUNK[:-5] + b"ready" + 16 * CHUNK))
    assert (await client.ask(check, Address("127.0.0.1", soon.port))).reason == ""


async def test_a_compressed_body_is_not_unpacked(serve: Any, client: ProbeClient) -> None:
    bomb = await serve(answer("200 OK", b"not gzip at all: ready", "Content-Encoding: gzip"))
    check = Check("e", 80, body_contains="ready")
    assert (await client.ask(check, Address("127.0.0.1", bomb.port))).reason == ""


class Running:
    """A prober that runs, and the keys that it woke."""

    def __init__(self, **options: Any) -> None:
        self.woken: list[Key] = []
        self.prober = Prober(SystemClock(), settling_period=0.03, **options)
        self.prober.listen(self.woken.append)
        self.task = asyncio.create_task(self.prober.run())

    def watch(self, check: Check, *, key: Key = BACKEND, **more: Any) -> None:
        self.prober.watch(
            key, checks=[check], ips=more.get("ips", ["10.9.9.9"]), known=more.get("known", {})
        )

    def state(self, name: str = "e", key: Key = BACKEND) -> tuple[str, str]:
        found = self.prober.results(key)[name]
        return found.state.value, found.reason

    async def until(self, state: str, reason: str = "", **where: Any) -> None:
        async with asyncio.timeout(20):
            while self.state(**where) != (state, reason):  # noqa: ASYNC110 - results are polled
                await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.prober.aclose()


@pytest.fixture
async def running() -> AsyncIterator[Callable[..., Running]]:
    async with AsyncExitStack() as stack:

        def start(**ports: int) -> Running:
            overrides = {
                ("shop", name, 8000): Address("127.0.0.1", port) for name, port in ports.items()
            }
            found = Running(overrides=overrides)
            stack.push_async_callback(found.aclose)
            return found

        yield start


def quick(**changes: Any) -> Check:
    return Check("e", 8000, **{"period": 0.05, "timeout": 0.3, **changes})


async def test_news_wake_once_and_no_news_never(serve: Any, running: Any) -> None:
    status = "200 OK"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(status)(reader, writer)

    server = await serve(talk)
    found = running(backend=server.port)
    found.watch(quick())
    assert found.state() == ("Unknown", "Probing")
    await found.until("Healthy")
    assert found.woken == [BACKEND]
    results = found.prober.results(BACKEND)
    seen = server.connections
    await asyncio.sleep(0.4)
    assert server.connections > seen + 2, "it goes on probing"
    assert found.woken == [BACKEND]
    assert found.prober.results(BACKEND) is results

    status = "500 No"
    await found.until("Failing", "HTTP500")
    assert found.woken == [BACKEND] * 2
    assert found.prober.results(BACKEND)["e"].consecutive_failures == 3
    status = "200 OK"
    await found.until("Healthy")
    assert found.woken == [BACKEND] * 3


async def test_a_forgotten_service_is_probed_no_more(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running(backend=server.port)
    found.watch(quick())
    await found.until("Healthy")
    found.prober.forget(BACKEND)
    await asyncio.sleep(0.1)
    seen = server.connections
    await asyncio.sleep(0.3)
    assert server.connections == seen
    assert found.prober.results(BACKEND) == {}


async def test_a_hanging_endpoint_holds_up_no_other(serve: Any, running: Any) -> None:
    slow, good = await serve(hang), await serve(answer("200 OK"))
    found = running(backend=slow.port, web=good.port)
    found.watch(quick(timeout=60))
    other = Key("shop", "web")
    found.watch(quick(), key=other)
    async with asyncio.timeout(20):
        await found.until("Healthy", key=other)


async def test_known_results_hold_until_a_verdict(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running(backend=server.port)
    known = EndpointStatus(name="e", state=EndpointState.FAILING, reason="HTTP500")
    found.watch(quick(period=0.4), known={"e": known})
    assert found.prober.results(BACKEND)["e"] is known
    assert found.woken == []
    await found.until("Healthy")


async def test_what_is_unknown_is_asked_at_once(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running(backend=server.port)
    known = EndpointStatus(name="e", state=EndpointState.UNKNOWN, reason="Probing")
    found.watch(quick(period=3600.0), known={"e": known})
    await found.until("Healthy")


async def test_another_question_starts_anew(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running(backend=server.port)
    found.watch(quick())
    await found.until("Healthy")
    found.watch(quick(statuses=frozenset({201})))
    assert found.state() == ("Unknown", "Probing")
    await found.until("Failing", "HTTP200")


async def test_without_pods_nothing_is_probed(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running(backend=server.port)
    found.watch(quick(), ips=[])
    await asyncio.sleep(0.2)
    assert (found.state(), server.connections) == (("Unknown", "NoPods"), 0)


async def test_a_pod_that_claims_a_loopback_address_is_not_probed(serve: Any, running: Any) -> None:
    server = await serve(answer("200 OK"))
    found = running()
    for ip in ("127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"):
        found.watch(Check("e", server.port, period=0.05, timeout=0.3), ips=[ip])
        await found.until("Unknown", "NothingReached")
    assert server.connections == 0


async def test_once_anything_is_reached_the_unreached_are_failing(serve: Any, running: Any) -> None:
    good = await serve(answer("200 OK"))
    found = running(web=good.port)
    other = Key("shop", "web")
    found.watch(quick(), ips=["169.254.1.1"])
    await found.until("Unknown", "NothingReached")
    found.watch(quick(), key=other)
    await found.until("Failing", "AddressRefused")
    assert BACKEND in found.woken
    found.prober.forget(other)
    await found.until("Unknown", "NothingReached")


def _closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
