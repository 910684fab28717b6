"""Destroys sandboxes that nobody owns, and deletes runs whose time to live is over."""

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any, Final

from capibara_operator import metrics
from capibara_operator.api.common import (
    CLOSED_LABEL,
    EXPIRES_AT_LABEL,
    OPERATOR_NAME,
    SandboxMetadata,
)
from capibara_operator.api.provider import SweepSummary
from capibara_operator.controllers.runs.execute import Apis, sandbox_of
from capibara_operator.core.providers.select import ProviderView, view_provider
from capibara_operator.core.runs.record import Run, parse_run
from capibara_operator.core.runs.sweep import Owned, condemned, is_expired, is_orphan, old_enough
from capibara_operator.core.runs.sweep import owned as owned_by_us
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Recorder
from capibara_operator.ports.resources import SANDBOX_PROVIDERS, SANDBOX_RUNS
from capibara_operator.ports.sandboxes import SandboxAPI, SandboxError
from capibara_operator.runtime.store import Store

_logger = logging.getLogger(__name__)
_EXPIRY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 1.0


class OrphanSweep:
    """Looks through every provider for sandboxes of ours that no run owns."""

    def __init__(  # noqa: PLR0913 - collaborators, all by keyword
        self,
        *,
        kube: KubeAPI,
        runs: Store,
        providers: Store,
        apis: Apis,
        recorder: Recorder,
        clock: Clock,
        cluster: str,
    ) -> None:
        self._kube = kube
        self._runs = runs
        self._providers = providers
        self._apis = apis
        self._recorder = recorder
        self._clock = clock
        self._cluster = cluster
        self._due: dict[str, float] = {}
        self._suspects: dict[str, frozenset[str]] = {}

    async def run(self) -> None:
        """Sweep each provider at its own interval, until cancelled."""
        await self._runs.synced.wait()
        await self._providers.synced.wait()
        while True:
            for view in self._due_providers():
                await self._sweep_safely(view)
            await asyncio.sleep(_LOOK_SECONDS)

    async def sweep(self, provider: ProviderView) -> int:
        """One pass over one provider; returns the number of sandboxes destroyed."""
        api = await self._apis(provider.name)
        mine = {
            SandboxMetadata.OPERATOR.value: OPERATOR_NAME,
            SandboxMetadata.CLUSTER.value: self._cluster,
        }
        infos = await api.list(mine)
        found = [owned_by_us(sandbox_of(info), info.metadata) for info in infos]
        grace = provider.spec.sweep.grace_seconds
        now = self._clock.now()
        old = [each for each in found if each is not None and old_enough(each, now, grace)]
        orphans = [each for each in old if await self._is_orphan(each)]
        suspects = self._suspects.get(provider.name, frozenset())
        doomed, capped = condemned(orphans, suspects, len(infos))
        self._suspects[provider.name] = frozenset(each.sandbox.sandbox_id for each in orphans)
        if capped:
            self._alert(provider, len(orphans), len(doomed))
        killed = await self._kill(api, doomed)
        if killed:
            metrics.SANDBOXES_REAPED.labels(provider.name).inc(killed)
            await self._report(provider.name, killed)
        return killed

    def _due_providers(self) -> list[ProviderView]:
        now = self._clock.monotonic()
        due = []
        for obj in self._providers.values():
            view = view_provider(obj)
            if view is None:
                continue
            interval = view.spec.sweep.interval_seconds
            at = self._due.setdefault(view.name, now + interval * random.uniform(0.1, 1.0))  # noqa: S311
            if at <= now:
                self._due[view.name] = now + interval
                due.append(view)
        return due

    async def _sweep_safely(self, view: ProviderView) -> None:
        try:
            await self.sweep(view)
        except (SandboxError, KubeError) as error:
            _logger.warning(
                "the orphan sweep failed, will retry",
                extra={"provider": view.name, "error": str(error)},
            )
        except Exception:
            _logger.exception("the orphan sweep failed", extra={"provider": view.name})

    async def _is_orphan(self, found: Owned) -> bool:
        key = Key(found.namespace, found.name)
        cached = self._runs.get(key)
        if cached is not None and not is_orphan(found, parse_run(cached)):
            return False
        # The cache may be behind: only a read from etcd condemns.
        return is_orphan(found, await self._read(key))

    async def _read(self, key: Key) -> Run | None:
        obj = await self._kube.get(SANDBOX_RUNS, key)
        return None if obj is None else parse_run(obj)

    async def _kill(self, api: SandboxAPI, doomed: tuple[str, ...]) -> int:
        killed = 0
        for sandbox_id in doomed:
            try:
                existed = await api.kill(sandbox_id)
            except SandboxError as error:
                _logger.warning(
                    "cannot destroy an orphaned sandbox, will retry",
                    extra={"sandboxID": sandbox_id, "error": error.message},
                )
                continue
            if existed:
                killed += 1
                _logger.warning("destroyed an orphaned sandbox", extra={"sandboxID": sandbox_id})
        return killed

    async def _report(self, provider: str, killed: int) -> None:
        key = Key("", provider)
        status = (self._providers.get(key) or {}).get("status") or {}
        body = {
            "reaped": status.get("reaped", 0) + killed,
            "lastSweep": SweepSummary(time=self._clock.now(), killed=killed).dump(),
        }
        await self._kube.patch(SANDBOX_PROVIDERS, key, {"status": body}, subresource="status")

    def _alert(self, provider: ProviderView, orphans: int, doomed: int) -> None:
        message = (
            f"{orphans} sandboxes carry this installation's metadata and belong to no run; "
            f"only {doomed} are destroyed in one sweep. If this cluster is a copy of another, "
            "give it an install id of its own (CAPIBARA_INSTALL_ID)."
        )
        _logger.error("too many orphaned sandboxes", extra={"provider": provider.name})
        for obj in self._providers.values():
            if obj["metadata"]["name"] == provider.name:
                self._recorder.event(obj, warning=True, reason="TooManyOrphans", message=message)


class ExpirySweep:
    """Deletes closed runs whose ``ttlSecondsAfterFinished`` is over."""

    def __init__(self, *, kube: KubeAPI, clock: Clock, namespaces: tuple[str, ...] = ()) -> None:
        self._kube = kube
        self._clock = clock
        self._namespaces = namespaces or ("",)

    async def run(self, *, seconds: float = _EXPIRY_SECONDS) -> None:
        """Sweep every so many seconds, until cancelled."""
        while True:
            try:
                await self.sweep()
            except KubeError as error:
                _logger.warning("the expiry sweep failed, will retry", extra={"error": str(error)})
            except Exception:
                _logger.exception("the expiry sweep failed")
            await asyncio.sleep(seconds)

    async def sweep(self) -> int:
        """One pass; returns the number of runs deleted."""
        deleted = 0
        for namespace in self._namespaces:
            runs = await self._kube.list(
                SANDBOX_RUNS,
                namespace=namespace,
                label_selector=f"{CLOSED_LABEL},{EXPIRES_AT_LABEL}",
                metadata_only=True,
            )
            for obj in runs:
                metadata = obj["metadata"]
                if is_expired(metadata, self._clock.now()):
                    deleted += await self._delete(metadata)
        return deleted

    async def _delete(self, metadata: Mapping[str, Any]) -> bool:
        key = Key(metadata["namespace"], metadata["name"])
        try:
            deleted = await self._kube.delete(SANDBOX_RUNS, key, uid=metadata["uid"])
        except KubeError as error:
            if error.transient:
                raise
            # Somebody's webhook or finalizer policy: the others' time is over all the same.
            _logger.warning(
                "cannot delete an expired run, will retry",
                extra={"run": f"{key.namespace}/{key.name}", "error": str(error)},
            )
            return False
        metrics.RUNS_EXPIRED.inc(deleted)
        return deleted
