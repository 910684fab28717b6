"""Conditions keep their times, and kstatus is never misled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.api.common import Condition, ConditionStatus
from capibara_operator.core.conditions import (
    Finding,
    derive_conditions,
    find_condition,
    is_true,
    kstatus_violations,
    ready_findings,
    reconciling_findings,
    set_condition,
    stalled_findings,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, 987654, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
START = NOW.replace(microsecond=0)

findings = st.one_of(
    st.builds(ready_findings, st.just("Running"), st.text(max_size=9)),
    st.builds(reconciling_findings, st.just("Rolling"), st.text(max_size=9)),
    st.builds(stalled_findings, st.just("Broken"), st.text(max_size=9)),
)


def condition(type_: str, status: str, generation: int = 1) -> Condition:
    return Condition(
        type=type_,
        status=ConditionStatus(status),
        reason="R",
        last_transition_time=START,
        observed_generation=generation,
    )


def test_the_time_moves_only_with_the_status() -> None:
    first = derive_conditions((), ready_findings("A"), generation=1, now=NOW)
    same = derive_conditions(first, ready_findings("B", "m"), generation=2, now=LATER)
    flipped = derive_conditions(same, stalled_findings("C"), generation=2, now=LATER)
    assert [found.last_transition_time for found in first + same] == [START, START]
    assert (same[0].reason, same[0].message, same[0].observed_generation) == ("B", "m", 2)
    assert {found.last_transition_time for found in flipped} == {START + timedelta(hours=1)}


def test_what_is_not_found_any_more_goes() -> None:
    before = derive_conditions((), stalled_findings("A"), generation=1, now=NOW)
    after = derive_conditions(before, ready_findings("B"), generation=1, now=NOW)
    assert [found.type for found in after] == ["Ready"]


def test_setting_keeps_the_order() -> None:
    before = (condition("A", "True"), condition("B", "True"))
    finding = Finding("A", None, "Why")
    after = set_condition(before, finding, generation=1, now=LATER)
    assert [(found.type, found.status) for found in after] == [("A", "Unknown"), ("B", "True")]
    assert [found.type for found in set_condition((), finding, generation=1, now=NOW)] == ["A"]
    assert find_condition(after, "C") is None
    assert is_true(after, "B")
    assert not is_true(after, "A")


def test_a_long_message_is_cut() -> None:
    cut = derive_conditions((), ready_findings("A", "x" * 9000), generation=1, now=NOW)
    assert len(cut[0].message) == 2048


@given(first=findings, second=findings, generation=st.integers(1, 9))
def test_no_history_misleads_kstatus(
    first: tuple[Finding, ...], second: tuple[Finding, ...], generation: int
) -> None:
    before = derive_conditions((), first, generation=generation, now=NOW)
    after = derive_conditions(before, second, generation=generation + 1, now=LATER)
    for conditions, seen in ((before, generation), (after, generation + 1)):
        assert kstatus_violations(conditions, generation=seen, observed_generation=seen) == ()
    again = derive_conditions(after, second, generation=generation + 1, now=LATER + timedelta(1))
    assert again == after


@pytest.mark.parametrize(
    ("conditions", "observed", "message"),
    [
        ((), 2, "Ready is missing"),
        ((condition("Ready", "True", 1),), 2, "older generation"),
        ((condition("Ready", "True", 2),), 1, "older generation"),
        ((condition("Ready", "True", 2), condition("Stalled", "True", 2)), 2, "beside"),
        ((condition("Ready", "True", 2), condition("Reconciling", "True", 2)), 2, "beside"),
        ((condition("Ready", "Unknown", 2),), 2, "Unknown without Reconciling"),
        (
            (
                condition("Ready", "False", 2),
                condition("Reconciling", "True", 2),
                condition("Stalled", "True", 2),
            ),
            2,
            "both True",
        ),
        ((condition("Ready", "False", 2), condition("Stalled", "False", 2)), 2, "not True"),
        ((condition("Ready", "False", 2), condition("Ready", "False", 2)), 2, "2 times"),
        ((condition("Ready", "False", 3),), 2, "observed generation 3 of 2"),
        ((condition("Ready", "False", 0),), 2, "observed generation 0 of 2"),
        ((condition("Ready", "False", 2),), 3, "ahead of the object"),
    ],
)
def test_each_violation_is_named(
    conditions: tuple[Condition, ...], observed: int, message: str
) -> None:
    found = kstatus_violations(conditions, generation=2, observed_generation=observed)
    assert any(message in line for line in found), found
