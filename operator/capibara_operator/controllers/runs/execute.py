"""Carries out what a plan asks for, and notes in the run's track what came of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from capibara_operator import metrics
from capibara_operator.api.common import SandboxMetadata
from capibara_operator.controllers.runs.faults import Faults, note_success
from capibara_operator.controllers.runs.gates import Gates
from capibara_operator.controllers.runs.stream import LogStream
from capibara_operator.controllers.runs.track import Track
from capibara_operator.controllers.runs.write import RunWriter
from capibara_operator.core.runs.actions import (
    Action,
    AddFinalizer,
    CheckStarted,
    CreateSandbox,
    ExtendSandbox,
    Follow,
    InspectSandbox,
    KillSandbox,
    ListSandboxes,
    ReadInputs,
    Release,
    RequestSlot,
    UploadJob,
    WriteOutput,
    WriteStatus,
)
from capibara_operator.core.runs.inputs import (
    Inputs,
    Reference,
    Source,
    references,
    resolve_inputs,
    unreadable,
    upload_files,
)
from capibara_operator.core.runs.protocol import DIRECTORY
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import Following, Refused, Sandbox, Started
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, KubeError
from capibara_operator.ports.resources import CONFIG_MAPS, SECRETS
from capibara_operator.ports.sandboxes import (
    CreateRequest,
    Fault,
    File,
    SandboxAPI,
    SandboxError,
    SandboxInfo,
)

_logger = logging.getLogger(__name__)
_MAX_LOCK_BYTES: Final = 256
_FACTS_SECONDS: Final = 1.0
_TOLD: Final = frozenset({1, 5, 25})
Apis = Callable[[str], Awaitable[SandboxAPI]]
"""Gives the API of a provider by its name; raises ``SandboxError``."""


@dataclass(frozen=True, slots=True)
class Executor:
    """The side effects of runs. ``wake`` has a run looked at again; ``wake_uids`` others."""

    kube: KubeAPI
    writer: RunWriter
    apis: Apis
    gates: Gates
    clock: Clock
    timing: Timing
    faults: Faults
    wake: Callable[[Key], None]
    wake_uids: Callable[[tuple[str, ...]], None]

    async def execute(self, action: Action, run: Run, track: Track) -> bool:
        """Carry out one action. False: a call to the provider failed; plan anew."""
        name = type(action).__name__
        try:
            await self._execute(action, run, track)
        except SandboxError as error:
            metrics.RUN_FAULTS.labels(name, error.fault.value).inc()
            trouble = self.faults.note(action, error, track)
            if trouble is not None and trouble.failures in _TOLD and _is_past_start(run):
                self.writer.warn(run, trouble.reason, trouble.message)
            return False
        note_success(action, track)
        return True

    async def _execute(self, action: Action, run: Run, track: Track) -> None:  # noqa: C901, PLR0912 - one case each
        match action:
            case AddFinalizer():
                await self.writer.hold(run)
            case WriteStatus():
                await self._write_status(action, run, track)
            case WriteOutput():
                await self._write_output(action, run, track)
            case Release():
                await self._release(action, run, track)
            case ReadInputs():
                track.inputs = await self._read_inputs(run)
            case RequestSlot():
                self.wake_uids(self.gates.request(track, action.provider))
            case ListSandboxes():
                await self._list(action, run, track)
            case CreateSandbox():
                await self._create(action, run, track)
            case InspectSandbox():
                await self._inspect(action, track)
            case ExtendSandbox():
                await self._extend(action, track)
            case CheckStarted():
                await self._check_started(action, track)
            case UploadJob():
                await self._upload(action, run, track)
            case Follow():
                self._follow(action, track)
            case KillSandbox():
                await self._kill(action, track)
            case _:
                assert_never(action)

    async def _list(self, action: ListSandboxes, run: Run, track: Track) -> None:
        api = await self.apis(action.provider)
        mine = run.metadata(self.writer.operator, self.writer.cluster)
        del mine[SandboxMetadata.ATTEMPT]
        found = await api.list(mine)
        track.sandboxes = tuple(sandbox_of(info) for info in found)

    async def _create(self, action: CreateSandbox, run: Run, track: Track) -> None:
        api = await self.apis(action.provider)
        request = CreateRequest(
            template_id=action.template_id,
            metadata=action.metadata,
            idempotency_key=action.idempotency_key,
            lifetime_seconds=action.lifetime_seconds,
        )
        began = self.clock.monotonic()
        # Until the answer is here it is not known what there is: a failure makes us look.
        track.sandboxes = None
        info = await api.create(request)
        created = sandbox_of(info)
        track.sandboxes = (replace(created, attempt=run.attempt, running=True),)
        track.started = Started.NO
        milliseconds = round((self.clock.monotonic() - began) * 1000)
        track.stages = replace(track.stages, create=milliseconds)
        _logger.info(
            "created a sandbox",
            extra={"sandboxID": info.sandbox_id, "provider": action.provider, "ms": milliseconds},
        )

    async def _inspect(self, action: InspectSandbox, track: Track) -> None:
        api = await self.apis(action.provider)
        info = await api.get(action.sandbox_id)
        if info is None:
            track.gone = True
            return
        track.inspected = sandbox_of(info)
        if track.following is not None:
            # The log's end said otherwise: try again, but not in a tight circle.
            track.following = None
            message = f"sandbox {action.sandbox_id} is there but does not answer"
            raise SandboxError(Fault.UNREACHABLE, message)

    async def _extend(self, action: ExtendSandbox, track: Track) -> None:
        api = await self.apis(action.provider)
        await api.resume(action.sandbox_id, lifetime_seconds=action.lifetime_seconds)
        if track.inspected is not None:
            track.inspected = replace(track.inspected, running=True, end_at=None)

    async def _check_started(self, action: CheckStarted, track: Track) -> None:
        api = await self.apis(action.provider)
        lock = await api.read(action.sandbox_id, f"{DIRECTORY}/lock", limit_bytes=_MAX_LOCK_BYTES)
        track.started = Started.NO if lock is None else Started.UPLOADED

    async def _upload(self, action: UploadJob, run: Run, track: Track) -> None:
        if run.spec is None or not isinstance(track.inputs, Inputs):
            raise RuntimeError("an upload was planned without its inputs")
        files = upload_files(
            run.spec,
            track.inputs,
            key=action.key,
            deadline_seconds=action.deadline_seconds,
            template_env=action.template_env,
        )
        api = await self.apis(action.provider)
        began = self.clock.monotonic()
        # What the sandbox really got is only for the status: its answer may not cost time.
        facts = asyncio.create_task(api.get(action.sandbox_id))
        try:
            await api.upload(action.sandbox_id, [File(path, data) for path, data in files])
        finally:
            track.inspected = await _optional(facts) or track.inspected
        milliseconds = round((self.clock.monotonic() - began) * 1000)
        track.stages = replace(track.stages, upload=milliseconds)
        track.started = Started.UPLOADED
        track.inputs = Inputs()

    def _follow(self, action: Follow, track: Track) -> None:
        stream = LogStream(
            connect=lambda: self.apis(action.provider),
            sandbox_id=action.sandbox_id,
            key=action.key,
            transcript=track.transcript,
        )
        track.following = Following(since=self.clock.now())
        name = f"log of {track.key.namespace}/{track.key.name}"
        track.stream = asyncio.create_task(self._read_log(stream, track), name=name)

    async def _read_log(self, stream: LogStream, track: Track) -> None:
        following = track.following
        with metrics.RUN_STREAMS.track_inprogress():
            try:
                end = await stream.read()
            except Exception:  # the run must not hang on a fault of ours
                _logger.exception("following a job's log failed")
                await asyncio.sleep(self.timing.last_retry)
                track.following = None
                self.wake(track.key)
                return
        if end is None:
            track.exit_at = self.clock.now()
        elif following is not None and track.following is following:
            track.following = replace(following, end=end[0], detail=end[1])
        self.wake(track.key)

    async def _kill(self, action: KillSandbox, track: Track) -> None:
        await stop_stream(track)
        api = await self.apis(action.provider)
        existed = await api.kill(action.sandbox_id)
        track.killed |= {action.sandbox_id}
        _logger.info(
            "destroyed a sandbox", extra={"sandboxID": action.sandbox_id, "existed": existed}
        )

    async def _read_inputs(self, run: Run) -> Inputs | Refused:
        if run.spec is None:
            raise RuntimeError("inputs were asked for without a spec")
        objects: dict[Reference, Any] = {}
        for ref in references(run.spec):
            resource = SECRETS if ref.kind is Source.SECRET else CONFIG_MAPS
            try:
                objects[ref] = await self.kube.get(resource, Key(run.namespace, ref.name))
            except KubeError as error:
                if error.transient:
                    raise
                return unreadable(ref, error.reason)
        return resolve_inputs(run.spec, objects)

    async def _write_status(self, action: WriteStatus, run: Run, track: Track) -> None:
        written = await self.writer.write_status(run, action.status)
        if not written:
            return
        if action.status.sandbox_id and run.status.sandbox_id is None:
            self.gates.hold(track.uid, action.status.provider or "")
            track.slot_provider = action.status.provider or ""
        if action.status.attempt != run.status.attempt and run.status.attempt is not None:
            track.begin_attempt()
        if action.status.completion_time is not None:
            await stop_stream(track)
            track.inputs = None
            track.trouble = None
            self.writer.finished(run, action.status, action.omissions)

    async def _write_output(self, action: WriteOutput, run: Run, track: Track) -> None:
        problem = await self.writer.write_output(run, action.manifest)
        track.output = "" if problem else action.manifest["metadata"]["name"]
        track.output_problem = problem

    async def _release(self, action: Release, run: Run, track: Track) -> None:
        if await self.writer.release(run, action.labels, action.warning):
            track.released = True
            await stop_stream(track)
            self.wake_uids(self.gates.release(track))


def _is_past_start(run: Run) -> bool:
    """Whether trouble is not shown in the status any more, so that it needs an Event."""
    ending = run.finished or run.deleting_since is not None
    return ending or run.status.sandbox_id is not None


async def _optional(call: asyncio.Task[SandboxInfo | None]) -> Sandbox | None:
    """The sandbox, if the provider describes it soon."""
    try:
        async with asyncio.timeout(_FACTS_SECONDS):
            info = await call
    except (SandboxError, TimeoutError):
        return None
    return sandbox_of(info) if info is not None else None


async def stop_stream(track: Track) -> None:
    """Disconnect from the job's log; the job goes on."""
    stream, track.stream = track.stream, None
    if stream is None or stream.done() or stream is asyncio.current_task():
        return
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


def sandbox_of(info: SandboxInfo) -> Sandbox:
    """A sandbox as the planner reads it."""
    attempt = info.metadata.get(SandboxMetadata.ATTEMPT, "1")
    return Sandbox(
        sandbox_id=info.sandbox_id,
        running=info.state == "running",
        attempt=int(attempt) if attempt.isdecimal() else 1,
        started_at=info.started_at,
        end_at=info.end_at,
        cpus=info.cpu_count,
        memory_mib=info.memory_mib,
    )
