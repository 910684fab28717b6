"""Kopf as the shell: login, discovery and watches, each event handed to its feed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import kopf

from capibara_operator.adapters.kube_session import KubeSession
from capibara_operator.api.common import OPERATOR_NAME
from capibara_operator.handlers.settings import WATCH_SECONDS, configure
from capibara_operator.runtime.feed import Feed

_SILENT_SECONDS: Final = 3 * WATCH_SECONDS


def build_registry(feeds: Sequence[Feed], session: KubeSession) -> kopf.OperatorRegistry:
    """All handlers of the operator: the login, and one per watched resource."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # Kopf closes a session with which it got a 401; ours is a view of the shared pool.
        return kopf.AiohttpSession(server=session.server, aiohttp_session=session.session())

    for feed in feeds:
        _add_handler(registry, feed)
    return registry


def _add_handler(registry: kopf.OperatorRegistry, feed: Feed) -> None:
    resource = feed.resource

    @kopf.on.event(
        resource.group,
        resource.version,
        resource.plural,
        id=f"feed-{resource.plural}",
        registry=registry,
    )
    async def saw(event: kopf.RawEvent, **_: Any) -> None:
        feed.saw(event["type"], dict(event["object"]))


class Watches:
    """The watches of all feeds, run by Kopf."""

    def __init__(
        self, feeds: Sequence[Feed], session: KubeSession, *, namespaces: Sequence[str]
    ) -> None:
        self._feeds = feeds
        self._session = session
        self._namespaces = namespaces
        self._stop = asyncio.Event()
        self._started_at = time.monotonic()
        self._up = asyncio.Event()

    async def run(self, *, take_signals: Callable[[], None]) -> None:
        """Watch until ``stop`` is called; raises what ends Kopf early.

        Kopf puts signal handlers of its own in place, after which ``take_signals`` is called.
        At its end Kopf cancels every task that was created after its start.
        """
        settings = kopf.OperatorSettings()
        configure(settings, self._feeds)
        older = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=build_registry(self._feeds, self._session),
            settings=settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            # Kopf would name itself after the user, and a container's user has no name.
            identity=cast("Any", OPERATOR_NAME),
            stop_flag=self._stop,
            ready_flag=self._up,
        )
        take_signals()
        await kopf.run_tasks(tasks, ignored=older)

    def stop(self) -> None:
        """Have ``run`` return."""
        self._stop.set()

    async def wait_open(self) -> None:
        """Wait until every watch is open."""
        await self._up.wait()
        while self.missing():
            self._session.watch_opened.clear()
            await self._session.watch_opened.wait()

    def missing(self) -> Sequence[str]:
        """The watches that were never open yet, one line each."""
        return [
            f"the watch of {feed.resource.plural} is not open yet"
            for feed in self._feeds
            if not all(path in self._session.watches for path in self._paths(feed))
        ]

    def silent(self) -> Sequence[str]:
        """The watches that have not been opened anew for far too long, one line each."""
        now = time.monotonic()
        opened = {
            path: self._session.watches.get(path, self._started_at)
            for feed in self._feeds
            for path in self._paths(feed)
        }
        return [
            f"the watch of {path} is silent for {now - at:.0f} s"
            for path, at in opened.items()
            if now - at > _SILENT_SECONDS
        ]

    def _paths(self, feed: Feed) -> Sequence[str]:
        resource = feed.resource
        root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
        if not resource.namespaced or not self._namespaces:
            return (f"{root}/{resource.plural}",)
        return [f"{root}/namespaces/{each}/{resource.plural}" for each in self._namespaces]
