"""The HTTP server for /metrics, /healthz and /readyz."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from capibara_operator import metrics

_logger = logging.getLogger(__name__)

_LAG_PERIOD_SECONDS: Final = 1.0
_WORST_LAG_SECONDS: Final = 5.0

Check = Callable[[], Sequence[str]]
"""Says what is wrong, one line each; nothing when all is well."""


class EventLoopLag:
    """Measures by how much the event loop is late."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def run(self) -> None:
        """Measure once a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self.seconds = max(loop.time() - due, 0.0)
            metrics.LOOP_LAG.set(self.seconds)

    def check(self) -> Sequence[str]:
        """A line when the last measurement is bad."""
        if self.seconds <= _WORST_LAG_SECONDS:
            return ()
        return (f"the event loop was late by {self.seconds:.1f} s",)


class StatusServer:
    """Serves what Prometheus and the kubelet ask for."""

    def __init__(self, *, health: Sequence[Check], readiness: Sequence[Check]) -> None:
        self.port = 0
        self._health = health
        self._readiness = readiness
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> None:
        """Listen; ``port`` 0 takes a free one, to be found in ``self.port``. Raises ``OSError``."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host or None, port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        _logger.info("serving metrics and probes", extra={"address": host, "port": self.port})

    async def aclose(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            await self._runner.cleanup()

    @staticmethod
    async def _metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _report(self._health)

    async def _readyz(self, _: web.Request) -> web.Response:
        return _report(self._readiness)


def _report(checks: Sequence[Check]) -> web.Response:
    lines = [line for check in checks for line in check()]
    if lines:
        return web.Response(status=503, text="\n".join(lines) + "\n")
    return web.Response(text="ok\n")
