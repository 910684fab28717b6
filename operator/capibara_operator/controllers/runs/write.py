"""All writes to the API server that runs cause."""

import logging
from collections.abc import Mapping
from typing import Any

from capibara_operator import metrics
from capibara_operator.api.common import FINALIZER
from capibara_operator.api.run import RunReason, SandboxRunStatus
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.status import status_patch
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Manifest, Recorder
from capibara_operator.ports.resources import CONFIG_MAPS, SANDBOX_RUNS
from capibara_operator.runtime.store import Store

_logger = logging.getLogger(__name__)
_QUIET_REASONS = frozenset({RunReason.COMPLETED, RunReason.CANCELLED})


class RunWriter:
    """Writes to runs. Each is conditional on the run being as it was read.

    On a conflict the run is read anew into the store, and the caller plans anew. ``operator`` and
    ``cluster`` are what sandboxes' metadata says of us.
    """

    def __init__(
        self,
        *,
        kube: KubeAPI,
        runs: Store,
        recorder: Recorder,
        operator: str,
        cluster: str,
    ) -> None:
        self.operator = operator
        self.cluster = cluster
        self._kube = kube
        self._runs = runs
        self._recorder = recorder

    async def hold(self, run: Run) -> None:
        """Add our finalizer."""
        finalizers = [*self._finalizers(run), FINALIZER]
        await self._patch(run, {"metadata": {"finalizers": finalizers}})

    async def release(self, run: Run, labels: Mapping[str, str], warning: str) -> bool:
        """Remove our finalizer and set labels, in one patch; False: plan anew."""
        if warning:
            self.warn(run, RunReason.SANDBOX_LOST, warning)
        metadata: dict[str, Any] = {"labels": dict(labels)} if labels else {}
        if run.held:
            metadata["finalizers"] = [f for f in self._finalizers(run) if f != FINALIZER]
        if not metadata:
            return True
        return await self._patch(run, {"metadata": metadata}, keep=False)

    async def write_status(self, run: Run, status: SandboxRunStatus) -> bool:
        """Store a status if it differs; a new reason that is no good news becomes an Event."""
        patch = status_patch(run.stored, status)
        if patch is None:
            return True
        if not await self._patch(run, {"status": patch}, subresource="status"):
            return False
        if status.reason is None or status.reason in _QUIET_REASONS:
            return True
        ended = status.completion_time is not None
        if ended or status.reason != run.status.reason:
            self.warn(run, status.reason, status.message or "")
        return True

    async def write_output(self, run: Run, manifest: Manifest) -> str:
        """Create the output object; returns what went wrong for good, or an empty text."""
        try:
            await self._kube.create(CONFIG_MAPS, manifest)
        except KubeError as error:
            if error.transient:
                raise
            if error.reason == "AlreadyExists" and await self._is_ours(run, manifest):
                return ""
            return f"the outputs could not be stored in ConfigMap: {error}"
        return ""

    def finished(self, run: Run, status: SandboxRunStatus, omissions: tuple[str, ...]) -> None:
        """Count and tell that a run has ended."""
        metrics.RUNS_FINISHED.labels(status.phase or "", status.reason or "").inc()
        stages = status.stages.dump() if status.stages else {}
        for stage, milliseconds in stages.items():
            metrics.RUN_STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
        _logger.info(
            "the run ended",
            extra={"phase": status.phase, "reason": status.reason, "stages": stages},
        )
        if omissions:
            message = f"Some output was left out: {'; '.join(omissions)}."
            self.warn(run, RunReason.OUTPUT_TOO_LARGE, message)

    def warn(self, run: Run, reason: RunReason, message: str) -> None:
        """Emit a Warning about a run."""
        obj = self._runs.get(Key(run.namespace, run.name))
        if obj is not None:
            self._recorder.event(obj, warning=True, reason=reason.value, message=message)

    async def _is_ours(self, run: Run, manifest: Manifest) -> bool:
        key = Key(run.namespace, manifest["metadata"]["name"])
        found = await self._kube.get(CONFIG_MAPS, key)
        owners = (found or {}).get("metadata", {}).get("ownerReferences") or ()
        return any(owner.get("uid") == run.uid for owner in owners)

    def _finalizers(self, run: Run) -> list[str]:
        obj = self._runs.get(Key(run.namespace, run.name)) or {"metadata": {}}
        return list(obj["metadata"].get("finalizers") or ())

    async def _patch(
        self, run: Run, body: dict[str, Any], *, subresource: str = "", keep: bool = True
    ) -> bool:
        key = Key(run.namespace, run.name)
        metadata = {**body.get("metadata", {}), "resourceVersion": run.resource_version}
        body = {**body, "metadata": {**metadata, "uid": run.uid}}
        try:
            written = await self._kube.patch(SANDBOX_RUNS, key, body, subresource=subresource)
        except KubeError as error:
            if not error.conflict:
                raise
            await self._refresh(run)
            return False
        if written is None:
            self._runs.remove(key, uid=run.uid)
            return not keep
        if keep:
            self._runs.upsert(written)
        return True

    async def _refresh(self, run: Run) -> None:
        key = Key(run.namespace, run.name)
        current = await self._kube.get(SANDBOX_RUNS, key)
        if current is None or current["metadata"]["uid"] != run.uid:
            self._runs.remove(key, uid=run.uid)
        if current is not None:
            self._runs.upsert(current)
