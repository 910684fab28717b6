from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY

from capibara_operator import logs
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.runtime.controller import Controller, Result, TerminalError

A = Key("default", "a")
Run = Callable[[Any], Any]


@dataclass
class Scripted:
    """Does what the script says, one entry a call, the last one for ever."""

    script: list[Callable[[], Awaitable[Result]]]
    calls: list[float] = field(default_factory=list)

    async def reconcile(self, key: Key) -> Result:
        self.calls.append(asyncio.get_running_loop().time())
        return await self.script[min(len(self.calls), len(self.script)) - 1]()


async def fine() -> Result:
    return Result()


def again(seconds: float) -> Callable[[], Awaitable[Result]]:
    async def result() -> Result:
        return Result(requeue_after=seconds)

    return result


def fails(error: BaseException) -> Callable[[], Awaitable[Result]]:
    async def fail() -> Result:
        raise error

    return fail


def total(name: str, controller: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"controller": controller, **labels}) or 0.0


async def served(controller: Controller, seconds: float) -> None:
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(seconds)
    assert not task.done()
    controller.close()
    async with asyncio.timeout(10):
        await task


def test_requeue_after_is_in_seconds(run_virtual: Run) -> None:
    async def scenario() -> list[float]:
        reconciler = Scripted([again(10), again(20), fine])
        controller = Controller("requeue", reconciler)
        controller.enqueue(A)
        await served(controller, 100)
        return [call - reconciler.calls[0] for call in reconciler.calls]

    assert run_virtual(scenario()) == pytest.approx([0, 10, 30])
    assert total("controller_runtime_reconcile_total", "requeue", result="requeue_after") == 2
    assert total("controller_runtime_reconcile_total", "requeue", result="success") == 1


def test_a_failure_is_retried_with_growing_delays_and_a_success_resets_them(
    run_virtual: Run,
) -> None:
    bad = fails(KubeError(503, "ServiceUnavailable", "later"))

    async def scenario() -> None:
        reconciler = Scripted([bad, bad, bad, fine])
        controller = Controller("failing", reconciler)
        controller.enqueue(A)
        await served(controller, 100)
        first, second, third, _ = reconciler.calls
        assert third - second > second - first
        assert controller.queue.failures(A) == 0

    run_virtual(scenario())
    assert total("controller_runtime_reconcile_errors_total", "failing") == 3
    assert total("controller_runtime_reconcile_panics_total", "failing") == 0
    assert total("controller_runtime_reconcile_total", "failing", result="error") == 3


def test_retry_after_of_the_server_is_honoured(run_virtual: Run) -> None:
    async def scenario() -> None:
        bad = fails(KubeError(429, "TooManyRequests", "slow down", retry_after=42))
        reconciler = Scripted([bad, fine])
        controller = Controller("throttled", reconciler)
        controller.enqueue(A)
        await served(controller, 100)
        assert reconciler.calls[1] - reconciler.calls[0] == pytest.approx(42)

    run_virtual(scenario())


def test_a_bug_is_logged_with_its_traceback_and_the_worker_lives_on(
    run_virtual: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        reconciler = Scripted([fails(ZeroDivisionError("oops")), fine])
        controller = Controller("buggy", reconciler, workers=1)
        controller.enqueue(A)
        await served(controller, 10)
        assert len(reconciler.calls) == 2

    with caplog.at_level(logging.ERROR):
        run_virtual(scenario())
    assert any(record.exc_info for record in caplog.records)
    assert total("controller_runtime_reconcile_panics_total", "buggy") == 1


def test_a_cancellation_from_inside_does_not_kill_the_worker(run_virtual: Run) -> None:
    async def cancels_itself() -> Result:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(1)
        return Result()

    async def scenario() -> None:
        reconciler = Scripted([cancels_itself, fine])
        controller = Controller("cancelled", reconciler, workers=1)
        controller.enqueue(A)
        await served(controller, 10)
        assert len(reconciler.calls) == 2

    run_virtual(scenario())


def test_a_terminal_error_is_not_retried_until_the_object_changes(run_virtual: Run) -> None:
    async def scenario() -> None:
        reconciler = Scripted([fails(TerminalError("hopeless"))])
        controller = Controller("terminal", reconciler)
        controller.enqueue(A)
        await served(controller, 1_000)
        assert len(reconciler.calls) == 1

    run_virtual(scenario())
    assert total("controller_runtime_terminal_reconcile_errors_total", "terminal") == 1


def test_a_reconciliation_has_a_deadline(run_virtual: Run) -> None:
    async def hangs() -> Result:
        await asyncio.sleep(10_000)
        return Result()

    async def scenario() -> None:
        reconciler = Scripted([hangs, fine])
        controller = Controller("hanging", reconciler, deadline=60)
        controller.enqueue(A)
        await served(controller, 100)
        assert reconciler.calls[1] - reconciler.calls[0] >= 60

    run_virtual(scenario())
    assert total("controller_runtime_reconcile_timeouts_total", "hanging") == 1


def test_closing_waits_for_work_under_way(run_virtual: Run) -> None:
    ended = []

    async def slow() -> Result:
        await asyncio.sleep(5)
        ended.append(True)
        return Result(requeue_after=1)

    async def scenario() -> None:
        reconciler = Scripted([slow])
        controller = Controller("slow", reconciler)
        controller.enqueue(A)
        await served(controller, 1)
        assert ended == [True]
        assert len(reconciler.calls) == 1

    run_virtual(scenario())


def test_cancelling_run_cancels_the_work(run_virtual: Run) -> None:
    async def scenario() -> None:
        reconciler = Scripted([again(0)])
        reconciler.script = [lambda: asyncio.sleep(1_000, Result())]
        controller = Controller("stopped", reconciler)
        controller.enqueue(A)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
        assert controller.queue.working == 0

    run_virtual(scenario())


def test_lines_logged_by_a_reconciler_name_their_object(
    run_virtual: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def logs_a_line() -> Result:
        logging.getLogger("x").info("hello", extra={"sandbox": "s1"})
        return Result()

    async def scenario() -> None:
        controller = Controller("logging", Scripted([logs_a_line]))
        controller.enqueue(A)
        await served(controller, 1)

    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure(level="INFO", log_format="json")
        run_virtual(scenario())
    finally:
        root.handlers[:], root.level = before
    line = next(
        found
        for found in map(json.loads, capsys.readouterr().err.splitlines())
        if found["msg"] == "hello"
    )
    assert line["controller"] == "logging"
    assert (line["namespace"], line["name"]) == A
    assert len(line["reconcileID"]) == 32
    assert line["sandbox"] == "s1"
    assert line["level"] == "info"
