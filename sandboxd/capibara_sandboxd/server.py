"""Start, serve and stop."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

from aiohttp import web

from . import state
from .app import application
from .config import ConfigurationError, Settings
from .isolation import host as hosts
from .isolation import rootfs
from .registry import Registry

_log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then kill every sandbox."""
    loop = asyncio.get_running_loop()
    if sys.version_info < (3, 12):
        # The default starts a thread for each child.
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, _stop, stop, number)
    lock = state.lock(settings.state_dir)
    host = hosts.detect(settings.state_dir)
    for name, enforced, how in host.findings():
        level = logging.INFO if enforced else logging.WARNING
        _log.log(level, "%s: %s (%s)", name, "enforced" if enforced else "NOT enforced", how)
    registry = Registry(settings, host, rootfs.prepare(settings.state_dir))
    await registry.recover()
    runner = web.AppRunner(
        application(registry),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        await _listen(runner, settings)
        await stop.wait()
    finally:
        await registry.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(runner.cleanup(), timeout=5.0)
        os.close(lock)
        _log.info("stopped")


def _stop(stop: asyncio.Event, number: signal.Signals) -> None:
    _log.info("stopping", extra={"reason": number.name})
    stop.set()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another --host or --port"
        ) from error
    port = runner.addresses[0][1]
    url = f"http://{settings.host}:{port}"
    _log.info("listening on %s; set E2B_API_URL and E2B_SANDBOX_URL to it", url)
