"""The runs' controller on a fake API server and a fake provider: one process of the operator."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from capibara_operator.controllers.runs import Catalogue, OrphanSweep, RunReconciler
from capibara_operator.core.providers.select import view_provider
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.kube import Key, Manifest
from capibara_operator.ports.resources import (
    SANDBOX_PROVIDERS,
    SANDBOX_RUNS,
    SANDBOX_TEMPLATES,
)
from capibara_operator.ports.sandboxes import SandboxAPI
from capibara_operator.runtime.controller import Result
from capibara_operator.runtime.store import Store
from support.run_fakes import FakeClock, FakeKube, FakeProvider

READY = [
    {
        "type": "Ready",
        "status": "True",
        "reason": "Fine",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
]
TEMPLATE: Manifest = {
    "metadata": {"namespace": "system", "name": "default", "generation": 1},
    "spec": {"templateID": "tpl", "taskTypes": ["General"], "timeoutSeconds": 100},
    "status": {"observedGeneration": 1, "conditions": READY},
}
PROVIDER: Manifest = {
    "metadata": {
        "name": "p",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"capibara6.dev/is-default-provider": "true"},
    },
    "spec": {
        "apiURL": "http://127.0.0.1:1",
        "credentialsSecretRef": {"name": "s", "key": "k"},
        "namespaceSelector": {},
        "limits": {"maxConcurrentSandboxes": 2, "creates_per_second": 1000},
        "sweep": {"intervalSeconds": 60, "graceSeconds": 60},
    },
    "status": {"observedGeneration": 1, "conditions": READY},
}


class Events:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def event(self, obj: Manifest, *, warning: bool, reason: str, message: str) -> None:
        self.told.append((obj["metadata"]["name"], reason, message))


class Operator:
    """One process: its memory goes with it, its tasks are cancelled by ``crash``."""

    def __init__(
        self,
        kube: FakeKube,
        provider: FakeProvider,
        clock: FakeClock,
        *,
        timing: Timing | None = None,
        provider_spec: dict[str, Any] | None = None,
    ) -> None:
        self.kube, self.provider, self.clock = kube, provider, clock
        self.events = Events()
        self.runs = _store(SANDBOX_RUNS, [])
        for obj in kube.runs():
            self.runs.upsert(copy.deepcopy(obj))
        limits = PROVIDER["spec"]["limits"] | {"createsPerSecond": 1000}
        limits.pop("creates_per_second", None)
        spec = PROVIDER["spec"] | {"limits": limits} | (provider_spec or {})
        self.provider_manifest = PROVIDER | {"spec": spec}
        templates = _store(SANDBOX_TEMPLATES, [TEMPLATE])
        providers = _store(SANDBOX_PROVIDERS, [self.provider_manifest])
        self.woken: set[Key] = set(self.runs.keys())
        self.due: dict[Key, float] = {}
        catalogue = Catalogue(
            kube=kube, templates=templates, providers=providers, operator_namespace="system"
        )
        self.reconciler = RunReconciler(
            kube=kube,
            runs=self.runs,
            catalogue=catalogue,
            apis=self._api,
            recorder=self.events,
            clock=clock,
            cluster="c",
            enqueue=self.woken.add,
            timing=timing,
        )
        self.sweep = OrphanSweep(
            kube=kube,
            runs=self.runs,
            providers=providers,
            apis=self._api,
            recorder=self.events,
            clock=clock,
            cluster="c",
        )

    async def _api(self, _: str) -> SandboxAPI:
        return self.provider

    def watch(self) -> None:
        """Deliver what the API server has by now, as the watch does."""
        current = {
            Key(o["metadata"]["namespace"], o["metadata"]["name"]): o for o in self.kube.runs()
        }
        for key in list(self.runs.keys()):
            obj = current.get(key)
            closed = obj is not None and "capibara6.dev/closed" in obj["metadata"].get("labels", {})
            if obj is None or closed:
                self.runs.remove(key)
                self.woken.add(key)
        for key, obj in current.items():
            if "capibara6.dev/closed" in obj["metadata"].get("labels", {}):
                continue
            if self.runs.upsert(copy.deepcopy(obj)):
                self.woken.add(key)

    async def reconcile(self, key: Key) -> Result:
        self.woken.discard(key)
        result = await self.reconciler.reconcile(key)
        self.due.pop(key, None)
        if result.requeue_after is not None:
            self.due[key] = self.clock.monotonic() + result.requeue_after
        await asyncio.sleep(0)
        return result

    async def rest(self) -> None:
        """Reconcile what is woken or due until nothing is, streams included."""
        for _ in range(200):
            await settle()
            now = self.clock.monotonic()
            keys = self.woken | {key for key, at in self.due.items() if at <= now}
            if not keys:
                return
            for key in sorted(keys):
                await self.reconcile(key)
            self.watch()
        raise AssertionError("the operator does not come to rest")

    async def sweep_once(self) -> int:
        view = view_provider(self.provider_manifest)
        assert view is not None
        return await self.sweep.sweep(view)

    async def crash(self) -> None:
        """What was under way ends, and nothing is tidied up."""
        await self.reconciler.aclose()


async def settle() -> None:
    """Let tasks that wait for nothing but each other go on."""
    for pause in [0] * 10 + [0.001] + [0] * 20:  # the longest wait before a reconnection is 0.4 ms
        await asyncio.sleep(pause)


def _store(resource: Any, objects: list[Manifest]) -> Store:
    store = Store(resource)
    for obj in objects:
        store.upsert(copy.deepcopy(obj))
    store.synced.set()
    return store
