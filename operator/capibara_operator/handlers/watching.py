"""Kopf as the shell: login, discovery and watches, each event handed to its feed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import kopf

from capibara_operator.adapters.kube_session import KubeSession
from capibara_operator.handlers.settings import configure
from capibara_operator.runtime.feed import Feed


def build_registry(feeds: Sequence[Feed], session: KubeSession) -> kopf.OperatorRegistry:
    """All handlers of the operator: the login, and one per watched resource."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.AiohttpSession:
        # Kopf closes a session with which it got a 401; ours is a view of the shared pool.
        return kopf.AiohttpSession(server=session.server, aiohttp_session=session.session())

    for feed in feeds:
        _watch(registry, feed)
    return registry


def _watch(registry: kopf.OperatorRegistry, feed: Feed) -> None:
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


async def watch(
    feeds: Sequence[Feed],
    session: KubeSession,
    *,
    namespaces: Sequence[str],
    stop: asyncio.Event,
    started: asyncio.Event,
) -> None:
    """Watch until ``stop`` is set; sets ``started`` once Kopf is up.

    Raises what ends Kopf early. Kopf cancels every task that was created after its start.
    """
    settings = kopf.OperatorSettings()
    configure(settings, feeds)
    await kopf.operator(
        registry=build_registry(feeds, session),
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
        ready_flag=started,
    )
