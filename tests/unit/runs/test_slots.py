"""Fair admission to a provider."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.core.runs.slots import Limits, Slots


def granted(slots: Slots, uid: str, namespace: str = "a", now: float = 0) -> bool:
    return slots.request(uid, namespace, now=now).granted


def test_only_so_many_and_asking_again_keeps_the_slot() -> None:
    slots = Slots(Limits(sandboxes=2))
    assert [granted(slots, uid) for uid in ("1", "2", "3")] == [True, True, False]
    assert granted(slots, "1")
    slots.release("1")
    assert slots.admit(now=0) == ("3",)


def test_namespaces_take_turns_and_the_oldest_goes_first() -> None:
    slots = Slots(Limits(sandboxes=0))
    for uid, namespace in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")):
        assert not granted(slots, uid, namespace)
    slots.limits = Limits(sandboxes=5)
    assert slots.admit(now=0) == ("a1", "b1", "a2", "b2", "a3")


def test_a_rate_gives_its_burst_and_then_one_at_a_time() -> None:
    slots = Slots(Limits(creates_per_second=2))
    answers = [slots.request(uid, "a", now=0) for uid in ("1", "2", "3", "4")]
    assert [each.granted for each in answers] == [True, True, False, False]
    assert answers[2].retry_after == 0.5
    assert slots.admit(now=0.5) == ("3",)
    assert slots.admit(now=0.6) == ()


def test_a_full_provider_takes_nobody_more_until_one_leaves_or_time_passes() -> None:
    slots = Slots(Limits(sandboxes=10))
    assert granted(slots, "1")
    assert granted(slots, "2")
    slots.shrink("2", now=0, seconds=5)
    assert not granted(slots, "2", now=1)
    assert not granted(slots, "3", now=1)
    slots.release("1")
    assert slots.admit(now=2) == ("2",)
    assert slots.admit(now=5) == ("3",)


def test_a_pause_holds_for_everybody() -> None:
    slots = Slots()
    slots.block("1", now=0, seconds=3)
    answer = slots.request("2", "a", now=1)
    assert (answer.granted, answer.retry_after) == (False, 2)
    assert granted(slots, "2", now=3)


@given(st.lists(st.tuples(st.sampled_from("rxh"), st.integers(0, 6)), max_size=60))
def test_never_more_than_the_limit_and_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    slots = Slots(Limits(sandboxes=2))
    wanting: set[str] = set()
    for step, number in steps:
        uid = str(number)
        if step == "x":
            slots.release(uid)
            wanting.discard(uid)
        else:
            slots.request(uid, f"ns{number % 3}", now=0)
            wanting.add(uid)
        slots.admit(now=0)
        assert len(slots.holders) <= 2
        assert len(slots.holders) + slots.waiting == len(wanting)
        assert slots.waiting == 0 or len(slots.holders) == 2


def test_who_waited_for_a_slot_asks_again_when_only_time_is_missing() -> None:
    slots = Slots(Limits(sandboxes=1, creates_per_second=1))
    assert granted(slots, "1")
    assert [slots.request(uid, "a", now=0).retry_after for uid in ("2", "3")] == [None, None]
    slots.release("1")
    assert slots.due(now=0.25) == ("2",)
    assert slots.request("2", "a", now=0.25).retry_after is not None
    assert slots.due(now=1) == ("2",)
    assert "2" in slots.holders
    assert slots.due(now=9) == (), "a holder's release wakes the next"


def test_who_was_told_of_a_full_provider_may_leave() -> None:
    slots = Slots(Limits(sandboxes=1))
    assert granted(slots, "1")
    assert slots.request("2", "a", now=0).retry_after is None
    slots.shrink("1", now=0, seconds=5)
    assert slots.due(now=1) == ("2",)
    assert slots.request("2", "a", now=1).retry_after == 4
