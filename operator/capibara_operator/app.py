"""The composition root: builds the parts, starts them in order and stops them in order."""

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from capibara_operator import metrics, wiring
from capibara_operator.adapters.events import EventRecorder
from capibara_operator.adapters.kube_api import KubeClient
from capibara_operator.adapters.kube_session import KubeSession, LoginError, connect, own_namespace
from capibara_operator.adapters.status_server import EventLoopLag, StatusServer
from capibara_operator.handlers.watching import Watches
from capibara_operator.ports.clock import SystemClock
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.resources import NAMESPACES
from capibara_operator.runtime.feed import compare_all
from capibara_operator.settings import Settings
from capibara_operator.version import VERSION

_logger = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 3.0
_EXIT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 2.0
_DEFAULT_NAMESPACE: Final = "capibara-system"
_GC_THRESHOLDS: Final = (50_000, 20, 20)


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code of the process."""
    operator = Operator(settings)
    operator.take_signals()
    return await operator.run()


class Operator:
    """One run of the operator, from the login to the last Event."""

    def __init__(self, settings: Settings) -> None:
        self.stop = asyncio.Event()
        self._settings = settings
        self._stage = "logging in to the API server"
        self._tasks: list[asyncio.Task[None]] = []
        self._watches: Watches | None = None
        self._parts: wiring.Parts | None = None
        self._lag = EventLoopLag()

    def take_signals(self) -> None:
        """Have SIGTERM and SIGINT stop the operator."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)

    async def run(self) -> int:
        """Work until ``stop`` is set; returns 0, or 1 when something broke."""
        metrics.BUILD_INFO.info({"version": VERSION})
        async with AsyncExitStack() as stack:
            try:
                work = asyncio.create_task(self._work(stack), name="work")
                stopped = asyncio.create_task(self.stop.wait(), name="stop")
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                code = _outcome(work)
            finally:
                self._stage = "stopping"
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                await self._drain()
        _logger.info("stopped", extra={"exitCode": code})
        return code

    async def _work(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._start("event-loop-lag", self._lag.run())
        server = StatusServer(
            health=[self._lag.check, self._silent_watches], readiness=[self._unready]
        )
        stack.push_async_callback(server.aclose)
        await server.start(settings.bind_host, settings.bind_port)
        session = await connect(kubeconfig=settings.kubeconfig, context=settings.kube_context)
        stack.push_async_callback(session.aclose)
        kube = KubeClient(session)
        stack.push_async_callback(kube.aclose)
        recorder = EventRecorder(kube, SystemClock(), instance=settings.instance)
        self._start("events", recorder.run())
        stack.push_async_callback(recorder.flush, seconds=_FLUSH_SECONDS)
        _logger.info("logged in", extra={"server": session.server, "version": VERSION})
        namespace = settings.operator_namespace or own_namespace() or _DEFAULT_NAMESPACE
        context = wiring.Context(
            settings=settings,
            kube=kube,
            recorder=recorder,
            clock=SystemClock(),
            operator_namespace=namespace,
            cluster=f"{settings.cluster_id or await self._cluster_id(kube)}-{settings.install_id}",
        )
        self._parts = parts = wiring.build(context)
        self._stage = "listing"
        await asyncio.gather(*(feed.fill(kube) for feed in parts.feeds))
        await self._serve(parts, kube, session)

    async def _cluster_id(self, kube: KubeClient) -> str:
        """The UID of the namespace kube-system; tries until it can be read."""
        while True:
            try:
                found = await kube.get(NAMESPACES, Key("", "kube-system"))
            except KubeError as error:
                advice = "grant get on namespaces or set CAPIBARA_CLUSTER_ID"
                self._stage = f"reading the UID of the namespace kube-system: {error}; {advice}"
                _logger.warning("cannot start yet, will retry", extra={"error": self._stage})
            else:
                if found is not None:
                    return str(found["metadata"]["uid"])
                # A new API server makes it only after its start.
                self._stage = "waiting for the namespace kube-system"
            await asyncio.sleep(_RETRY_SECONDS)

    async def _serve(self, parts: wiring.Parts, kube: KubeClient, session: KubeSession) -> None:
        for controller in parts.controllers:
            self._start(controller.name, controller.run())
        for name, background in parts.backgrounds:
            self._start(name, background())
        comparing = compare_all(kube, parts.feeds, seconds=self._settings.resync_seconds)
        self._start("compare", comparing)
        self._stage = "opening the watches"
        self._watches = watches = Watches(parts.feeds, session, namespaces=parts.namespaces)
        self._start("kopf", watches.run(take_signals=self.take_signals))
        await _first(watches.wait_open(), *self._tasks)
        self._stage = ""
        _tune_garbage_collection()
        _logger.info("ready", extra={"objects": sum(len(feed.store) for feed in parts.feeds)})
        await _first(*self._tasks)

    def _start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(coroutine, name=name))

    def _unready(self) -> Sequence[str]:
        if self._parts is None:
            return (self._stage,)
        lines = [
            f"the list of {feed.resource.plural} is missing: {feed.problem}"
            for feed in self._parts.feeds
            if feed.problem
        ]
        lines += self._watches.missing() if self._watches else ()
        if self._stage and not lines:
            lines.append(self._stage)
        return lines

    def _silent_watches(self) -> Sequence[str]:
        return self._watches.silent() if self._watches else ()

    async def _drain(self) -> None:
        controllers = self._parts.controllers if self._parts else ()
        for controller in controllers:
            controller.close()
        names = {controller.name for controller in controllers}
        await self._await_end(names, self._settings.drain_seconds)
        for aclose in self._parts.closers if self._parts else ():
            try:
                async with asyncio.timeout(_EXIT_SECONDS):
                    await aclose()
            except Exception:
                _logger.exception("a part does not stop cleanly")
        if self._watches:
            self._watches.stop()
        await self._await_end({"kopf"}, _EXIT_SECONDS)
        rest = [task for task in self._tasks if task.get_name() != "events"]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _await_end(self, names: set[str], seconds: float) -> None:
        tasks = [task for task in self._tasks if task.get_name() in names]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            _logger.warning("cancelling what takes too long", extra={"task": task.get_name()})
            task.cancel()


async def _first(*awaitables: Any) -> None:
    """Wait for the first to end; raises its error."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _outcome(work: asyncio.Task[None]) -> int:
    if not work.done():
        _logger.info("stopping on a signal")
        return 0
    error = work.exception()
    if error is None:
        _logger.error("the watches ended on their own")
    elif isinstance(error, (LoginError, OSError)):
        _logger.error("cannot start", extra={"error": str(error)})
    else:
        _logger.error("a part ended on its own", exc_info=error)
    return 1


def _tune_garbage_collection() -> None:
    """Collect rarely, and never look at what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
