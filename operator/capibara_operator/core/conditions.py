"""Conditions: derived whole on every visit, and the invariants that kstatus relies on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from capibara_operator.api.common import Condition, ConditionStatus

READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
MAX_MESSAGE_LENGTH: Final = 2048


@dataclass(frozen=True, slots=True)
class Finding:
    """What is found of one condition, before it is known whether that is new.

    ``status`` True, False, or None for Unknown; ``reason`` CamelCase.
    """

    type: str
    status: bool | None
    reason: str
    message: str = ""


def derive_conditions(
    previous: Sequence[Condition],
    findings: Iterable[Finding],
    *,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions that say ``findings``, in that order; all others of ``previous`` go.

    ``lastTransitionTime`` is kept where the status is unchanged; that of Reconciling also tells
    when the work on this generation began.
    """
    return tuple(
        _condition(find_condition(previous, finding.type), finding, generation, now)
        for finding in findings
    )


def set_condition(
    previous: Sequence[Condition], finding: Finding, *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """``previous`` with one condition replaced in its place, or added at the end."""
    new = _condition(find_condition(previous, finding.type), finding, generation, now)
    if all(old.type != new.type for old in previous):
        return (*previous, new)
    return tuple(new if old.type == new.type else old for old in previous)


def find_condition(conditions: Sequence[Condition], type_: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((found for found in conditions if found.type == type_), None)


def is_true(conditions: Sequence[Condition], type_: str) -> bool:
    """Whether the condition is there and True."""
    found = find_condition(conditions, type_)
    return found is not None and found.status is ConditionStatus.TRUE


def ready_findings(reason: str, message: str = "") -> tuple[Finding, ...]:
    """The object is as it should be (kstatus: Current)."""
    return (Finding(READY, True, reason, message),)


def reconciling_findings(reason: str, message: str = "") -> tuple[Finding, ...]:
    """The operator works on it (kstatus: InProgress)."""
    return (Finding(READY, False, reason, message), Finding(RECONCILING, True, reason, message))


def stalled_findings(reason: str, message: str = "") -> tuple[Finding, ...]:
    """It goes on only when somebody acts (kstatus: Failed)."""
    return (Finding(READY, False, reason, message), Finding(STALLED, True, reason, message))


def kstatus_violations(
    conditions: Sequence[Condition], *, generation: int, observed_generation: int
) -> tuple[str, ...]:
    """What waiters (Helm, Flux, Argo CD, kubectl) would misread; empty when all is well.

    Holds for every status that the operator writes; property tests call it.
    """
    ready = find_condition(conditions, READY)
    reconciling, stalled = is_true(conditions, RECONCILING), is_true(conditions, STALLED)
    if ready is None:
        return ("Ready is missing",)
    broken = {
        "Reconciling and Stalled are both True": reconciling and stalled,
        "Ready is True beside Reconciling or Stalled": (
            ready.status is ConditionStatus.TRUE and (reconciling or stalled)
        ),
        "Ready is Unknown without Reconciling": (
            ready.status is ConditionStatus.UNKNOWN and not reconciling
        ),
        "Ready is True for an older generation": ready.status is ConditionStatus.TRUE
        and min(ready.observed_generation, observed_generation) < generation,
        "observedGeneration is ahead of the object": observed_generation > generation,
    }
    return tuple(what for what, holds in broken.items() if holds) + _form_violations(
        conditions, generation
    )


def _form_violations(conditions: Sequence[Condition], generation: int) -> tuple[str, ...]:
    counts = Counter(found.type for found in conditions)
    doubled = [f"{type_} is there {n} times" for type_, n in counts.items() if n > 1]
    ahead = [
        f"{found.type} observed generation {found.observed_generation} of {generation}"
        for found in conditions
        if not 0 < found.observed_generation <= generation
    ]
    idle = [
        f"{found.type} is present but not True"
        for found in conditions
        if found.type in {RECONCILING, STALLED} and found.status is not ConditionStatus.TRUE
    ]
    return (*doubled, *ahead, *idle)


def _condition(
    previous: Condition | None, finding: Finding, generation: int, now: datetime
) -> Condition:
    status = _STATUSES[finding.status]
    same = previous is not None and previous.status is status
    if previous and finding.type == RECONCILING:
        # A new generation is a new piece of work: deadlines count from its beginning.
        same = same and previous.observed_generation == generation
    since = previous.last_transition_time if previous and same else now.replace(microsecond=0)
    return Condition(
        type=finding.type,
        status=status,
        reason=finding.reason,
        message=finding.message[:MAX_MESSAGE_LENGTH],
        last_transition_time=since,
        observed_generation=generation,
    )


_STATUSES: Final = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}
