"""Which parts there are and who gets what."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.api.common import OPEN_SELECTOR
from capibara_operator.controllers.connections import Connections
from capibara_operator.controllers.providers import ProviderReconciler
from capibara_operator.controllers.runs import Catalogue, ExpirySweep, OrphanSweep, RunReconciler
from capibara_operator.controllers.templates import TemplateReconciler
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, Manifest, Recorder
from capibara_operator.ports.resources import (
    SANDBOX_PROVIDERS,
    SANDBOX_RUNS,
    SANDBOX_TEMPLATES,
)
from capibara_operator.ports.sandboxes import Endpoint
from capibara_operator.runtime.controller import Controller
from capibara_operator.runtime.feed import Feed
from capibara_operator.runtime.store import Store, key_of
from capibara_operator.runtime.workqueue import WorkQueue
from capibara_operator.settings import Settings
from capibara_operator.wiring_services import build_services

Background = Callable[[], Coroutine[Any, Any, None]]
Closer = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Context:
    """What every part may need. ``cluster`` tells this installation from all others."""

    settings: Settings
    kube: KubeAPI
    recorder: Recorder
    clock: Clock
    operator_namespace: str
    cluster: str


@dataclass(slots=True)
class Parts:
    """Everything that ``app`` starts, and stops in this order: controllers, then closers."""

    feeds: list[Feed]
    namespaces: Sequence[str]
    controllers: list[Controller] = field(default_factory=list)
    backgrounds: list[tuple[str, Background]] = field(default_factory=list)
    closers: list[Closer] = field(default_factory=list)


def build(context: Context) -> Parts:
    """Make all parts; does no I/O."""
    namespaces = context.settings.served_namespaces(context.operator_namespace)
    templates = Feed(SANDBOX_TEMPLATES, _ignore, namespaces=namespaces)
    providers = Feed(SANDBOX_PROVIDERS, _ignore)
    runs = Feed(SANDBOX_RUNS, _ignore, OPEN_SELECTOR, namespaces)
    parts = Parts([templates, providers, runs], namespaces)
    connections = Connections(
        kube=context.kube,
        providers=providers.store,
        connect=_connect,
        operator_namespace=context.operator_namespace,
    )
    wake_runs = _add_runs(parts, context, (templates.store, providers.store, runs), connections)
    _add_catalogue(parts, context, (templates, providers), connections, wake_runs)
    _add_services(parts, context)
    parts.closers.append(connections.aclose)
    return parts


def _add_runs(
    parts: Parts,
    context: Context,
    known: tuple[Store, Store, Feed],
    connections: Connections,
) -> Callable[[], None]:
    """Returns what wakes the runs that wait for a template or a provider."""
    templates, providers, runs = known
    queue = WorkQueue[Key]("sandboxrun")
    catalogue = Catalogue(
        kube=context.kube,
        templates=templates,
        providers=providers,
        operator_namespace=context.operator_namespace,
    )
    reconciler = RunReconciler(
        kube=context.kube,
        runs=runs.store,
        catalogue=catalogue,
        apis=connections,
        recorder=context.recorder,
        clock=context.clock,
        cluster=context.cluster,
        enqueue=queue.add,
    )
    orphans = OrphanSweep(
        kube=context.kube,
        runs=runs.store,
        providers=providers,
        apis=connections,
        recorder=context.recorder,
        clock=context.clock,
        cluster=context.cluster,
    )
    expiry = ExpirySweep(kube=context.kube, clock=context.clock, namespaces=tuple(parts.namespaces))
    workers = context.settings.run_workers
    parts.controllers.append(Controller(queue.name, reconciler, workers=workers, queue=queue))
    parts.backgrounds += [("orphan-sweep", orphans.run), ("expiry-sweep", expiry.run)]
    parts.closers.append(reconciler.aclose)
    runs.enqueue = lambda obj: queue.add(key_of(obj), priority=_urgency(obj))

    def wake_waiting() -> None:
        for run in runs.store.values():
            if "sandboxID" not in (run.get("status") or {}):
                queue.add(key_of(run))

    return wake_waiting


def _add_catalogue(
    parts: Parts,
    context: Context,
    feeds: tuple[Feed, Feed],
    connections: Connections,
    wake_runs: Callable[[], None],
) -> None:
    templates, providers = feeds
    template_controller = Controller(
        "sandboxtemplate",
        TemplateReconciler(
            templates=templates.store,
            providers=providers.store,
            kube=context.kube,
            recorder=context.recorder,
            clock=context.clock,
            operator_namespace=context.operator_namespace,
        ),
        workers=context.settings.template_workers,
    )
    provider_controller = Controller(
        "sandboxprovider",
        ProviderReconciler(
            providers=providers.store,
            connections=connections,
            kube=context.kube,
            recorder=context.recorder,
            clock=context.clock,
        ),
        workers=context.settings.provider_workers,
    )
    parts.controllers += [template_controller, provider_controller]
    templates.enqueue = _waking(template_controller, wake_runs)
    providers.enqueue = _waking(provider_controller, wake_runs)


def _add_services(parts: Parts, context: Context) -> None:
    services = build_services(
        settings=context.settings,
        kube=context.kube,
        recorder=context.recorder,
        clock=context.clock,
        namespaces=parts.namespaces,
    )
    parts.feeds += services.feeds
    parts.controllers.append(services.controller)
    parts.backgrounds.append(("prober", services.prober.run))
    parts.closers.append(services.prober.aclose)


def _urgency(run: Manifest) -> int:
    """What holds a sandbox, or is to end, goes before what waits for its turn."""
    ending = "deletionTimestamp" in run["metadata"] or "sandboxID" in (run.get("status") or {})
    return int(ending)


def _connect(provider: str, endpoint: Endpoint) -> E2BSandboxes:
    return E2BSandboxes(endpoint, provider=provider)


def _waking(controller: Controller, others: Callable[[], None]) -> Callable[[Manifest], None]:
    def enqueue(obj: Manifest) -> None:
        controller.enqueue(key_of(obj))
        others()

    return enqueue


def _ignore(_: Manifest) -> None:
    """Until the consumer of a feed is made."""
