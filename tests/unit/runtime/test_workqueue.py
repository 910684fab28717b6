from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from capibara_operator.runtime.workqueue import QueueClosedError, WorkQueue

Run = Callable[[Any], Any]


def sample(name: str, queue: str) -> float:
    return REGISTRY.get_sample_value(name, {"name": queue, "controller": queue}) or 0.0


def test_a_key_that_is_added_often_is_taken_once(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("dedup")
        for _ in range(3):
            queue.add("a")
        assert queue.depth == 1
        assert await queue.get() == "a"
        queue.done("a")
        assert queue.depth == 0
        assert sample("workqueue_adds_total", "dedup") == 1

    run_virtual(scenario())


def test_a_key_added_while_it_is_worked_on_is_due_again_when_done(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("dirty")
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.add("a")
        assert queue.depth == 0, "never twice at the same time"
        queue.done("a")
        assert queue.depth == 1
        assert await queue.get() == "a"
        queue.done("a")
        assert queue.depth == 0

    run_virtual(scenario())


def test_delayed_keys_come_in_time_order_and_the_earliest_add_holds(run_virtual: Run) -> None:
    async def scenario() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        queue = WorkQueue[str]("delayed")
        queue.add("late", delay=30)
        queue.add("early", delay=10)
        queue.add("late", delay=20)
        queue.add("late", delay=40)
        taken = []
        for _ in range(2):
            key = await queue.get()
            taken.append((key, round(loop.time() - start, 3)))
            queue.done(key)
        assert queue.delayed == 0
        return taken

    assert run_virtual(scenario()) == [("early", 10.0), ("late", 20.0)]


def test_an_immediate_add_replaces_a_delayed_one(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("replaced")
        queue.add("a", delay=60)
        queue.add("a")
        assert (queue.depth, queue.delayed) == (1, 0)

    run_virtual(scenario())


def test_a_delay_that_ends_during_the_work_makes_the_key_due_after_it(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("overlap")
        queue.add("a")
        await queue.get()
        queue.add("a", delay=1)
        await asyncio.sleep(5)
        assert queue.depth == 0
        queue.done("a")
        assert queue.depth == 1

    run_virtual(scenario())


def test_priority_goes_before_age_and_a_higher_one_lifts_a_key(run_virtual: Run) -> None:
    async def scenario() -> list[str]:
        queue = WorkQueue[str]("priority")
        queue.add("first", priority=-1)
        queue.add("second")
        queue.add("third")
        queue.add("fourth", priority=5)
        queue.add("third", priority=1)
        return [await queue.get() for _ in range(4)]

    assert run_virtual(scenario()) == ["fourth", "third", "second", "first"]


def test_back_off_doubles_with_jitter_up_to_a_limit_and_is_per_key(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("backoff", first_retry=1, last_retry=60)
        delays = []
        for _ in range(9):
            delays.append(queue.retry("a"))
            await queue.get()
            queue.done("a")
        for number, delay in enumerate(delays):
            expected = min(2.0**number, 60)
            assert 0.8 * expected <= delay <= 1.2 * expected, (number, delay)
        assert queue.failures("a") == 9
        assert queue.retry("b") <= 1.2
        queue.forget("a")
        assert queue.retry("a") <= 1.2
        assert queue.retry("c", at_least=90) == 90
        assert sample("workqueue_retries_total", "backoff") == 12

    run_virtual(scenario())


def test_thousands_of_failures_do_not_overflow(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("overflow")
        queue._failures["a"] = 5_000
        assert queue.retry("a") <= 360

    run_virtual(scenario())


def test_getters_wait_their_turn_and_a_cancelled_one_loses_no_key(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("getters")
        first, second = (asyncio.create_task(queue.get()) for _ in range(2))
        await asyncio.sleep(0)
        queue.add("a")  # wakes the first getter, which is cancelled before it runs
        first.cancel()
        async with asyncio.timeout(10):
            assert await second == "a"
        assert first.cancelled()

    run_virtual(scenario())


def test_a_closed_queue_releases_its_getters_and_hands_out_nothing(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("closed")
        waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [QueueClosedError] * 3
        queue.add("a")
        queue.add("b", delay=1)
        assert (queue.depth, queue.delayed) == (0, 0)
        with pytest.raises(QueueClosedError):
            await queue.get()

    run_virtual(scenario())


def test_closing_while_work_is_under_way_lets_it_end_without_a_repeat(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("closing")
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.close()
        assert queue.working == 1
        queue.done("a")
        assert (queue.depth, queue.working) == (0, 0)

    run_virtual(scenario())


def test_metrics_tell_waiting_and_working_times(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("times")
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(3)
        await queue.get()
        await asyncio.sleep(2)
        await queue.get()
        await asyncio.sleep(1)
        assert sample("workqueue_depth", "times") == 0
        assert sample("workqueue_unfinished_work_seconds", "times") == pytest.approx(3 + 1)
        assert sample("workqueue_longest_running_processor_seconds", "times") == pytest.approx(3)
        queue.done("a")
        queue.done("b")
        assert sample("workqueue_queue_duration_seconds_sum", "times") == pytest.approx(3 + 5)
        assert sample("workqueue_work_duration_seconds_sum", "times") == pytest.approx(3 + 1)

    run_virtual(scenario())


def test_stale_heap_entries_are_dropped(run_virtual: Run) -> None:
    async def scenario() -> None:
        queue = WorkQueue[str]("compact")
        for _ in range(1_000):
            queue.add("a", delay=3_600)
            queue.add("a")
            await queue.get()
            queue.done("a")
        assert len(queue._later._heap) < 200
        assert len(queue._due._heap) < 200

    run_virtual(scenario())


ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 4), st.sampled_from([0.0, 0.0, 1.0, 7.0])),
    st.tuples(st.just("retry"), st.integers(0, 4), st.just(0.0)),
    st.tuples(st.just("sleep"), st.just(0), st.sampled_from([0.0, 0.5, 3.0])),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40), work_seconds=st.sampled_from([0.0, 0.3, 2.0]))
def test_every_added_key_is_worked_on_after_its_last_add_and_never_twice_at_once(
    run_virtual: Run, actions: list[tuple[str, int, float]], work_seconds: float
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        queue = WorkQueue[int]("property", first_retry=0.1, last_retry=1)
        under_way: set[int] = set()
        last_start: dict[int, float] = {}
        wanted: dict[int, float] = {}

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in under_way
                under_way.add(key)
                last_start[key] = loop.time()
                await asyncio.sleep(work_seconds)
                under_way.remove(key)
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(3)]
        for kind, key, seconds in actions:
            if kind == "sleep":
                await asyncio.sleep(seconds)
            else:
                wanted[key] = loop.time()
                if kind == "add":
                    queue.add(key, delay=seconds)
                else:
                    queue.retry(key)
        await asyncio.sleep(100)
        assert not any(worker.done() for worker in workers)
        assert (queue.depth, queue.delayed, queue.working) == (0, 0, 0)
        for key, at in wanted.items():
            assert last_start[key] >= at, "work started after the last add"
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    run_virtual(scenario())


def test_the_age_of_work_can_be_read_outside_of_the_loop(run_virtual: Run) -> None:
    async def scenario() -> WorkQueue[str]:
        queue = WorkQueue[str]("left-at-work")
        queue.add("a")
        await queue.get()
        await asyncio.sleep(3)
        return queue

    queue = run_virtual(scenario())
    assert queue.unfinished_seconds() >= 3
    assert queue.longest_running_seconds() >= 3
