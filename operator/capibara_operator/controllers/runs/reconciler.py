"""Brings one run nearer to its end: observe, plan, act, and again until there is nothing to do."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from capibara_operator.api.common import OPERATOR_NAME
from capibara_operator.controllers.runs.catalogue import Catalogue
from capibara_operator.controllers.runs.execute import Apis, Executor, stop_stream
from capibara_operator.controllers.runs.faults import Faults
from capibara_operator.controllers.runs.gates import Gates
from capibara_operator.controllers.runs.track import Track
from capibara_operator.controllers.runs.write import RunWriter
from capibara_operator.core.runs.plan import plan
from capibara_operator.core.runs.record import Run, parse_run
from capibara_operator.core.runs.seen import ChosenProvider, Started
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, Manifest, Recorder
from capibara_operator.ports.sandboxes import SandboxError
from capibara_operator.runtime.controller import Result
from capibara_operator.runtime.store import Store, key_of

_logger = logging.getLogger(__name__)
_MAX_STEPS: Final = 40


class RunReconciler:
    """Reconciles SandboxRuns.

    Args:
        runs: Open runs, kept by the watch.
        catalogue: Templates and providers.
        apis: Gives the API of a provider by its name.
        cluster: What tells this installation from all others: kube-system's UID and install id.
        enqueue: Has a run looked at; set by whoever owns the queue.
    """

    def __init__(  # noqa: PLR0913 - collaborators, all by keyword
        self,
        *,
        kube: KubeAPI,
        runs: Store,
        catalogue: Catalogue,
        apis: Apis,
        recorder: Recorder,
        clock: Clock,
        cluster: str,
        enqueue: Callable[[Key], None],
        timing: Timing | None = None,
    ) -> None:
        self._runs = runs
        self._catalogue = catalogue
        self._apis = apis
        self._clock = clock
        self._enqueue = enqueue
        self._timing = timing or Timing()
        self._tracks: dict[Key, Track] = {}
        self._keys: dict[str, Key] = {}
        self._began_at: datetime | None = None
        self._old: frozenset[str] = frozenset()
        self._cluster = cluster
        self._gates = Gates(clock)
        self._writer = RunWriter(
            kube=kube, runs=runs, recorder=recorder, operator=OPERATOR_NAME, cluster=cluster
        )
        self._executor = Executor(
            kube=kube,
            writer=self._writer,
            apis=apis,
            gates=self._gates,
            clock=clock,
            timing=self._timing,
            faults=Faults(self._gates, clock, self._timing),
            wake=enqueue,
            wake_uids=self._wake_uids,
        )

    async def reconcile(self, key: Key) -> Result:
        """Look at one run and do what there is to do."""
        await self._begin()
        obj = self._runs.get(key)
        track = self._tracks.get(key)
        if track is not None and (obj is None or obj["metadata"]["uid"] != track.uid):
            await self._forget(track)
            track = None
        if obj is None:
            return Result()
        track = track or self._track(key, obj)
        if track.released:
            return Result()
        track.begin_visit()
        for _ in range(_MAX_STEPS):
            done = await self._step(key, track)
            if done is not None:
                return done
        raise RuntimeError("a run's plan does not come to rest")

    async def aclose(self) -> None:
        """Disconnect from all logs; the jobs go on, and a successor follows them."""
        await asyncio.gather(*(stop_stream(track) for track in list(self._tracks.values())))

    async def _step(self, key: Key, track: Track) -> Result | None:
        """One plan and its actions; None: plan anew."""
        obj = self._runs.get(key)
        if obj is None or obj["metadata"]["uid"] != track.uid:
            await self._forget(track)
            return Result()
        run = parse_run(obj)
        template, provider = await self._catalogue.choose(run)
        if isinstance(provider, ChosenProvider):
            self._gates.set_limits(provider.name, provider.spec.limits)
        seen = track.seen(
            template=template, provider=provider, operator=OPERATOR_NAME, cluster=self._cluster
        )
        planned = plan(run, seen, self._clock.now(), self._timing)
        if not planned.actions:
            if planned.status is not None and not await self._writer.write_status(
                run, planned.status
            ):
                return None
            return Result(planned.requeue_after)
        for action in planned.actions:
            if not await self._executor.execute(action, run, track):
                break
        return Result() if track.released else None

    async def _begin(self) -> None:
        """Once: know what there is, and give every run that has a sandbox its slot."""
        if self._began_at is not None:
            return
        await self._runs.synced.wait()
        await self._catalogue.synced()
        if self._began_at is not None:
            return
        self._began_at = self._clock.now()
        self._old = frozenset(obj["metadata"]["uid"] for obj in self._runs.values())
        for obj in self._runs.values():
            status = obj.get("status") or {}
            if status.get("sandboxID") and status.get("provider"):
                # Tracked, so that the slot is given back even if it is closed before its visit.
                track = self._track(key_of(obj), obj)
                self._gates.hold(track.uid, track.slot_provider)

    def _track(self, key: Key, obj: Manifest) -> Track:
        run = parse_run(obj)
        track = Track(key=key, uid=run.uid, since=self._clock.now())
        if self._is_fresh(run):
            track.sandboxes = ()
            track.started = Started.NO
        track.slot_provider = run.status.provider or ""
        self._tracks[key] = track
        self._keys[run.uid] = key
        return track

    def _is_fresh(self, run: Run) -> bool:
        """Whether no earlier process of the operator can have created anything for the run."""
        began = self._began_at
        unseen = run.uid not in self._old and run.status.observed_generation < 1
        return unseen and began is not None and run.created_at >= began.replace(microsecond=0)

    async def _forget(self, track: Track) -> None:
        """The run is gone from the watch. Without a release of ours: kill what it had."""
        await stop_stream(track)
        self._tracks.pop(track.key, None)
        self._keys.pop(track.uid, None)
        self._wake_uids(self._gates.release(track))
        if track.released or not track.slot_provider:
            return
        for sandbox in track.sandboxes or ():
            if sandbox.sandbox_id not in track.killed:
                await self._kill(track.slot_provider, sandbox.sandbox_id)

    async def _kill(self, provider: str, sandbox_id: str) -> None:
        try:
            api = await self._apis(provider)
            await api.kill(sandbox_id)
        except SandboxError as error:
            _logger.warning(
                "cannot destroy the sandbox of a run that is gone; the orphan sweep will",
                extra={"sandboxID": sandbox_id, "error": error.message},
            )

    def _wake_uids(self, uids: tuple[str, ...]) -> None:
        for uid in uids:
            key = self._keys.get(uid)
            if key is not None:
                self._enqueue(key)
