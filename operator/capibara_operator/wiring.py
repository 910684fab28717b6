"""Which parts there are and who gets what."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from capibara_operator.adapters.status_server import Check
from capibara_operator.api.common import OPEN_SELECTOR
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import KubeAPI, Manifest, Recorder
from capibara_operator.ports.resources import (
    SANDBOX_PROVIDERS,
    SANDBOX_RUNS,
    SANDBOX_TEMPLATES,
)
from capibara_operator.runtime.controller import Controller
from capibara_operator.runtime.feed import Feed
from capibara_operator.settings import Settings
from capibara_operator.wiring_services import build_services


@dataclass(slots=True)
class Parts:
    """Everything that ``app`` starts and stops."""

    feeds: Sequence[Feed]
    namespaces: Sequence[str] = ()
    controllers: Sequence[Controller] = ()
    backgrounds: Sequence[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = ()
    closers: Sequence[tuple[str, Callable[[], Awaitable[None]]]] = ()
    readiness: Sequence[Check] = field(default=())


async def build(
    *, settings: Settings, kube: KubeAPI, recorder: Recorder, clock: Clock, namespace: str
) -> Parts:
    """Make all parts."""

    def ignore(_: Manifest) -> None:
        return

    namespaces = settings.served_namespaces(namespace)
    feeds = [
        Feed(SANDBOX_TEMPLATES, ignore, namespaces=namespaces),
        Feed(SANDBOX_PROVIDERS, ignore),
        Feed(SANDBOX_RUNS, ignore, OPEN_SELECTOR, namespaces),
    ]
    services = build_services(
        settings=settings, kube=kube, recorder=recorder, clock=clock, namespaces=namespaces
    )
    return Parts(
        [*feeds, *services.feeds],
        namespaces,
        controllers=[services.controller],
        backgrounds=[("prober", services.prober.run)],
        closers=[("prober", services.prober.aclose)],
    )
