"""The plan of a run, case by case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from capibara_operator.api.provider import SandboxProviderSpec
from capibara_operator.api.run import RunReason, TemplatePin
from capibara_operator.core.runs import actions as a
from capibara_operator.core.runs.plan import plan
from capibara_operator.core.runs.record import parse_run
from capibara_operator.core.runs.records import Exit, ExitReason, Output
from capibara_operator.core.runs.records import Started as Begun
from capibara_operator.core.runs.seen import (
    ChosenProvider,
    ChosenTemplate,
    Following,
    Refused,
    Sandbox,
    Seen,
    Slot,
    Started,
    StreamEnd,
    Trouble,
)
from capibara_operator.core.runs.timing import Timing
from capibara_operator.core.runs.transcript import Transcript

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMING = Timing(start_deadline=300, reference_grace=10, collect_grace=60, release_after=120)
METADATA: dict[str, Any] = {
    "namespace": "ns",
    "name": "r",
    "uid": "u",
    "generation": 1,
    "resourceVersion": "1",
    "creationTimestamp": "2026-01-01T12:00:00Z",
    "finalizers": ["capibara6.dev/finalizer"],
}
MINE = Sandbox("mine", started_at=NOW)
FREE = Slot(granted=True, since=NOW)
CLAIMED: dict[str, Any] = {
    "attempt": 1,
    "template": {"name": "t", "timeoutSeconds": 100},
    "sandboxID": "mine",
    "provider": "p",
    "startTime": "2026-01-01T12:00:00Z",
}
PINNED = CLAIMED | {"template": {"name": "t", "timeoutSeconds": 900}}
DONE = CLAIMED | {"completionTime": "2026-01-01T12:00:10Z", "reason": "Completed"}


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def trouble(*, at: float = 5, final: bool = False) -> Trouble:
    reason = RunReason.AUTHENTICATION_FAILED if final else RunReason.PROVIDER_UNREACHABLE
    return Trouble(reason, "It failed.", 1, NOW, later(at), final)


def ended(code: int = 0, reason: ExitReason = ExitReason.COMPLETED, text: str = "") -> Transcript:
    made = Transcript()
    if text:
        made.add(Output(0, "stdout", text))
    made.add(Exit(1, code, reason, 1.5))
    return made


def begun() -> Transcript:
    made = Transcript()
    made.add(Begun(0, 1.0, 1))
    return made


SEEN = Seen(
    since=NOW,
    template=ChosenTemplate(
        TemplatePin(name="t", namespace="s", template_id="tpl", timeout_seconds=100)
    ),
    provider=ChosenProvider(
        "p", SandboxProviderSpec.model_validate({"credentialsSecretRef": {"name": "s"}})
    ),
    operator="o",
    cluster="c",
)


@dataclass
class Case:
    reason: str
    want: list[type]
    seen: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOW
    phase: str = ""
    why: str = ""


READY_TO_CREATE: dict[str, Any] = {"sandboxes": (), "inputs": True, "slot": FREE}
GOING: dict[str, Any] = {"started": Started.UPLOADED, "following": Following(NOW)}
DELETED = {"deletionTimestamp": "2026-01-01T12:00:00Z"}
NO_PROVIDER = Refused(RunReason.PROVIDER_NOT_FOUND, "There is none.", waits=True)
NO_INPUT = Refused(RunReason.INVALID_SPEC, "ConfigMap x does not exist.", waits=True)

CASES = [
    Case("a run is held before anything else", [a.AddFinalizer], metadata={"finalizers": []}),
    Case("a sandbox that is there already is looked for first", [a.ListSandboxes]),
    Case("then its inputs are read", [a.ReadInputs], {"sandboxes": ()}),
    Case("then a slot is asked for", [a.RequestSlot], {"sandboxes": (), "inputs": True}),
    Case("then the sandbox is created", [a.CreateSandbox], READY_TO_CREATE),
    Case(
        "without a slot the run is queued and nothing is created",
        [],
        READY_TO_CREATE | {"slot": Slot(granted=False, since=NOW, reason="full")},
        phase="Queued",
    ),
    Case("a sandbox that was found is claimed", [a.WriteStatus], {"sandboxes": (MINE,)}),
    Case(
        "an earlier attempt's sandbox goes first",
        [a.KillSandbox],
        {"sandboxes": (MINE,)},
        {"attempt": 2},
    ),
    Case(
        "a missing input is waited for",
        [],
        {"sandboxes": (), "inputs": NO_INPUT},
        phase="Pending",
    ),
    Case(
        "a missing input ends the run at the start deadline",
        [a.WriteStatus],
        {"sandboxes": (), "inputs": NO_INPUT},
        now=later(300),
        why="StartDeadlineExceeded",
    ),
    Case(
        "a missing provider is waited for a moment",
        [],
        {"provider": NO_PROVIDER},
        phase="Pending",
    ),
    Case(
        "and then ends the run",
        [a.WriteStatus],
        {"provider": NO_PROVIDER},
        now=later(10),
        why="ProviderNotFound",
    ),
    Case(
        "a run longer than the provider allows is refused",
        [a.WriteStatus],
        spec={"activeDeadlineSeconds": 3600},
        why="InvalidSpec",
    ),
    Case(
        "a spec that cannot be read is refused",
        [a.WriteStatus],
        spec={"surprise": 1},
        why="InvalidSpec",
    ),
    Case(
        "a run cancelled before its start ends",
        [a.WriteStatus],
        spec={"cancel": True},
        why="Cancelled",
    ),
    Case(
        "after a failure the start pauses",
        [],
        READY_TO_CREATE | {"trouble": trouble()},
        phase="Starting",
    ),
    Case(
        "and goes on",
        [a.CreateSandbox],
        READY_TO_CREATE | {"trouble": trouble()},
        now=later(5),
    ),
    Case(
        "until the start deadline",
        [a.WriteStatus],
        READY_TO_CREATE | {"trouble": trouble(at=310)},
        now=later(301),
        why="StartDeadlineExceeded",
    ),
    Case(
        "a refused key ends the start at once",
        [a.WriteStatus],
        READY_TO_CREATE | {"trouble": trouble(final=True)},
        why="AuthenticationFailed",
    ),
    Case(
        "a key in use is waited out",
        [],
        READY_TO_CREATE | {"conflict_since": NOW},
        phase="Starting",
    ),
    Case(
        "the inputs are read again for the upload after a restart",
        [a.ReadInputs],
        {"started": Started.NO},
        CLAIMED,
    ),
    Case(
        "the job is uploaded once", [a.UploadJob], {"started": Started.NO, "inputs": True}, CLAIMED
    ),
    Case("what is uploaded is started", [a.Follow], {"started": Started.UPLOADED}, CLAIMED),
    Case("after a restart the sandbox is inspected", [a.InspectSandbox], {}, CLAIMED),
    Case("then its lock is read", [a.CheckStarted], {"inspected": MINE}, CLAIMED),
    Case(
        "a paused sandbox is woken first",
        [a.ExtendSandbox],
        {"inspected": replace(MINE, running=False)},
        CLAIMED,
    ),
    Case(
        "a sandbox that would end too soon gets longer",
        [a.ExtendSandbox],
        {"inspected": replace(MINE, end_at=later(50))},
        CLAIMED,
    ),
    Case(
        "the loser of a claim is killed",
        [a.KillSandbox],
        GOING | {"sandboxes": (MINE, Sandbox("other"))},
        CLAIMED,
    ),
    Case("a followed run is left alone", [], GOING, CLAIMED, now=later(50)),
    Case(
        "an exit ends it",
        [a.WriteStatus],
        GOING | {"transcript": ended()},
        CLAIMED,
        why="Completed",
    ),
    Case(
        "long output is stored before the result",
        [a.WriteOutput],
        GOING | {"transcript": ended(text="x" * 3000)},
        CLAIMED,
    ),
    Case(
        "a result that came before the cancellation counts",
        [a.WriteStatus],
        GOING | {"transcript": ended(3)},
        CLAIMED,
        {"cancel": True},
        why="NonZeroExit",
    ),
    Case("cancel ends it", [a.WriteStatus], GOING, CLAIMED, {"cancel": True}, why="Cancelled"),
    Case(
        "a lost sandbox whose code may have run is not replaced",
        [a.WriteStatus],
        GOING | {"gone": True},
        CLAIMED,
        why="SandboxLost",
    ),
    Case(
        "a lost sandbox whose code never ran is replaced",
        [a.WriteStatus],
        {"gone": True, "started": Started.NO},
        CLAIMED,
        phase="Starting",
    ),
    Case(
        "silence beyond the deadline and its grace ends it",
        [a.WriteStatus],
        GOING,
        CLAIMED,
        now=later(161),
        why="DeadlineExceeded",
    ),
    Case(
        "an operator that was away reads the log before it judges",
        [a.InspectSandbox],
        {"since": later(5000)},
        CLAIMED,
        now=later(5000),
    ),
    Case(
        "an unreachable provider does not end what runs",
        [],
        GOING | {"trouble": trouble(at=80)},
        CLAIMED,
        now=later(50),
    ),
    Case(
        "a stream that says gone is checked with the provider",
        [a.InspectSandbox],
        {"started": Started.UPLOADED, "following": Following(NOW, StreamEnd.GONE)},
        CLAIMED,
    ),
    Case(
        "a sandbox taken by another job is lost",
        [a.WriteStatus],
        {"started": Started.UPLOADED, "following": Following(NOW, StreamEnd.LOCKED)},
        CLAIMED,
        why="SandboxLost",
    ),
    Case(
        "a template without python3 is told",
        [a.WriteStatus],
        {"started": Started.UPLOADED, "following": Following(NOW, StreamEnd.BROKEN, "exit 127")},
        CLAIMED,
        why="TemplateNotReady",
    ),
    Case(
        "a template that was edited meanwhile does not shorten a run",
        [],
        GOING,
        PINNED,
        now=later(500),
    ),
    Case(
        "the deadline that the attempt began with ends it",
        [a.WriteStatus],
        GOING,
        PINNED,
        now=later(961),
        why="DeadlineExceeded",
    ),
    Case(
        "a log that the code itself removed is no fault of the template",
        [a.WriteStatus],
        {
            "started": Started.UPLOADED,
            "following": Following(NOW, StreamEnd.BROKEN, "exit 1"),
            "transcript": begun(),
        },
        CLAIMED,
        why="SandboxLost",
    ),
    Case("a stored result is followed by the kill", [a.KillSandbox], {}, DONE),
    Case("the confirmed kill by the release", [a.Release], {"killed": frozenset({"mine"})}, DONE),
    Case(
        "a closed run is left alone",
        [],
        {},
        DONE,
        metadata={"labels": {"capibara6.dev/closed": "true"}},
    ),
    Case("a failed kill pauses the closing", [], {"trouble": trouble()}, DONE),
    Case("a deleted run's sandbox is killed", [a.KillSandbox], {}, CLAIMED, metadata=DELETED),
    Case("a deleted run without a claim is searched for", [a.ListSandboxes], metadata=DELETED),
    Case("and released", [a.Release], {"sandboxes": ()}, metadata=DELETED),
    Case(
        "what somebody else holds is not ours to release",
        [],
        metadata=DELETED | {"finalizers": ["x"]},
    ),
    Case(
        "a deletion gives up on a provider that stays away",
        [a.Release],
        {"trouble": trouble(at=200)},
        CLAIMED,
        metadata=DELETED,
        now=later(121),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
def test_plan(case: Case) -> None:
    obj = {
        "metadata": METADATA | case.metadata,
        "spec": {"code": "1", **case.spec},
        "status": case.status,
    }
    planned = plan(parse_run(obj), replace(SEEN, **case.seen), case.now, TIMING)
    assert [type(each) for each in planned.actions] == case.want
    written = [each.status for each in planned.actions if isinstance(each, a.WriteStatus)]
    status = written[0] if written else planned.status
    if case.phase:
        assert status is not None
        assert status.phase == case.phase
    if case.why:
        assert status is not None
        assert (status.reason, status.completion_time) == (case.why, case.now)
    if not planned.actions and planned.status is not None and case.phase != "Queued":
        assert planned.requeue_after is not None
        assert planned.requeue_after > 0


def test_the_creation_depends_on_nothing_but_the_run_and_its_attempt() -> None:
    run = parse_run({"metadata": METADATA, "spec": {"code": "1"}, "status": {"attempt": 2}})
    seen = replace(SEEN, **READY_TO_CREATE)
    (action,) = plan(run, seen, NOW, TIMING).actions
    assert action == a.CreateSandbox(
        provider="p",
        template_id="tpl",
        metadata={
            "operator": "o",
            "cluster": "c",
            "namespace": "ns",
            "name": "r",
            "uid": "u",
            "attempt": "2",
        },
        idempotency_key="u-2",
        lifetime_seconds=220,
    )
    assert plan(run, seen, later(9), TIMING).actions == (action,)
