from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from capibara_operator.adapters.events import EventRecorder
from capibara_operator.ports.kube import Key, KubeError, Resource

Run = Callable[[Any], Any]
RUN = {
    "apiVersion": "capibara6.dev/v1alpha1",
    "kind": "SandboxRun",
    "metadata": {"namespace": "ns", "name": "plot", "uid": "u1"},
}


class LoopClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class FakeEvents:
    """Keeps events; fails as long as ``errors`` has any, and takes ``seconds`` a call."""

    errors: list[KubeError] = field(default_factory=list)
    seconds: float = 0.0
    created: list[dict[str, Any]] = field(default_factory=list)
    patched: list[tuple[Key, Mapping[str, Any]]] = field(default_factory=list)
    expired: bool = False

    async def create(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        self.created.append(obj)
        return obj

    async def patch(self, resource: Resource, key: Key, body: Mapping[str, Any]) -> Any:
        self.patched.append((key, body))
        return None if self.expired else {}


def outcomes() -> dict[str, float]:
    names = ("sent", "aggregated", "limited", "dropped", "failed")
    read = REGISTRY.get_sample_value
    metric = "capibara_kubernetes_events_total"
    return {name: read(metric, {"outcome": name}) or 0.0 for name in names}


async def recording(kube: FakeEvents) -> tuple[EventRecorder, asyncio.Task[None]]:
    recorder = EventRecorder(kube, LoopClock(), instance="capibara-operator-host")  # type: ignore[arg-type]
    return recorder, asyncio.create_task(recorder.run())


def emit(recorder: EventRecorder, message: str = "done", obj: Any = None) -> None:
    recorder.event(obj or RUN, warning=True, reason="CodeError", message=message)


def test_an_event_has_all_fields_of_the_events_api(run_virtual: Run) -> None:
    async def scenario() -> dict[str, Any]:
        kube = FakeEvents()
        recorder, _ = await recording(kube)
        emit(recorder)
        assert await recorder.flush(seconds=1)
        return kube.created[0]

    event = run_virtual(scenario())
    name = event["metadata"].pop("name")
    assert name.startswith("plot.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "ns"},
        "eventTime": "2026-01-01T00:16:40.000000Z",
        "reportingController": "capibara6.dev/operator",
        "reportingInstance": "capibara-operator-host",
        "action": "RunCode",
        "reason": "CodeError",
        "regarding": {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "SandboxRun",
            "namespace": "ns",
            "name": "plot",
            "uid": "u1",
        },
        "note": "done",
        "type": "Warning",
    }


def test_the_same_event_becomes_a_series_that_is_written_seldom(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeEvents()
        recorder, _ = await recording(kube)
        for _ in range(100):
            emit(recorder)
            await asyncio.sleep(1)
        assert len(kube.created) == 1
        assert len(kube.patched) == 3
        key, body = kube.patched[-1]
        assert key.name == kube.created[0]["metadata"]["name"]
        assert body["series"]["count"] > 90
        await recorder.flush(seconds=1)
        assert kube.patched[-1][1]["series"]["count"] == 100, "nothing is lost at the exit"

    run_virtual(scenario())


def test_after_a_long_pause_the_same_event_is_a_new_one(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeEvents()
        recorder, _ = await recording(kube)
        emit(recorder)
        await asyncio.sleep(400)
        emit(recorder)
        await recorder.flush(seconds=1)
        names = {event["metadata"]["name"] for event in kube.created}
        assert len(kube.created) == 2 == len(names)

    run_virtual(scenario())


def test_an_expired_series_is_created_anew(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeEvents(expired=True)
        recorder, _ = await recording(kube)
        emit(recorder)
        await asyncio.sleep(60)
        emit(recorder)
        await recorder.flush(seconds=1)
        assert [event.get("series", {}).get("count") for event in kube.created] == [None, 2]

    run_virtual(scenario())


def test_each_object_has_a_budget_of_its_own(run_virtual: Run) -> None:
    other = {**RUN, "metadata": {"namespace": "ns", "name": "other", "uid": "u2"}}

    async def scenario() -> None:
        kube = FakeEvents()
        recorder, _ = await recording(kube)
        before = outcomes()
        for number in range(30):
            emit(recorder, f"message {number}")
        emit(recorder, obj=other)
        await recorder.flush(seconds=1)
        assert len(kube.created) == 25 + 1
        assert outcomes()["limited"] - before["limited"] == 5
        await asyncio.sleep(301)
        emit(recorder, "one more")
        await recorder.flush(seconds=1)
        assert len(kube.created) == 27

    run_virtual(scenario())


def test_transient_failures_are_retried_and_others_are_given_up(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeEvents([KubeError(503, "ServiceUnavailable", "later")])
        recorder, task = await recording(kube)
        before = outcomes()
        emit(recorder)
        assert await recorder.flush(seconds=5)
        assert len(kube.created) == 1
        kube.errors = [KubeError(403, "Forbidden", "namespace is being terminated")]
        emit(recorder, "refused")
        emit(recorder, "after it")
        assert await recorder.flush(seconds=5)
        assert [event["note"] for event in kube.created] == ["done", "after it"]
        assert outcomes()["failed"] - before["failed"] == 1
        assert not task.done()

    run_virtual(scenario())


def test_a_lost_answer_does_not_double_an_event(run_virtual: Run) -> None:
    async def scenario() -> None:
        lost = [KubeError(0, "Unreachable", "lost"), KubeError(409, "AlreadyExists", "there")]
        kube = FakeEvents(lost)
        recorder, _ = await recording(kube)
        before = outcomes()
        emit(recorder)
        assert await recorder.flush(seconds=5)
        assert outcomes()["sent"] - before["sent"] == 1

    run_virtual(scenario())


def test_a_slow_api_server_blocks_nobody_and_the_queue_is_bounded(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeEvents(seconds=3_600)
        recorder, _ = await recording(kube)
        before = outcomes()
        for number in range(1_100):
            obj = {**RUN, "metadata": {"namespace": "ns", "name": f"r{number}", "uid": f"{number}"}}
            emit(recorder, obj=obj)
        await asyncio.sleep(1)
        assert outcomes()["dropped"] - before["dropped"] >= 99
        started = asyncio.get_running_loop().time()
        assert not await recorder.flush(seconds=2), "the deadline of the exit holds"
        assert asyncio.get_running_loop().time() - started < 3

    run_virtual(scenario())


@pytest.mark.parametrize("broken", [{}, {"metadata": {}}, {"metadata": None, "kind": "x"}])
def test_a_broken_object_raises_nothing(run_virtual: Run, broken: dict[str, Any]) -> None:
    async def scenario() -> None:
        recorder, _ = await recording(FakeEvents())
        recorder.event(broken, warning=False, reason="X", message="y")

    run_virtual(scenario())


def test_long_texts_are_cut_to_what_the_api_takes(run_virtual: Run) -> None:
    async def scenario() -> dict[str, Any]:
        kube = FakeEvents()
        recorder, _ = await recording(kube)
        obj = {**RUN, "metadata": {"name": "n" * 253, "uid": "u3"}}
        recorder.event(obj, warning=False, reason="R" * 200, message="ä" * 2_000)
        await recorder.flush(seconds=1)
        return kube.created[0]

    event = run_virtual(scenario())
    assert len(event["note"].encode()) <= 1024
    assert event["note"].endswith("...")
    assert len(event["reason"]) == 128
    assert len(event["metadata"]["name"]) <= 253
    assert event["metadata"]["namespace"] == "default", "of cluster-scoped objects"
