"""The runs' controller on fakes: what a real provider does only on a bad day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from capibara_operator.controllers.runs import execute, stream
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.sandboxes import Fault, SandboxError
from support.run_fakes import FakeClock, FakeKube, FakeProvider
from support.run_operator import Operator

TIMING = Timing(start_deadline=60, reference_grace=5, collect_grace=30, release_after=20)


@pytest.fixture(autouse=True)
def _fast_reconnects(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "_FIRST_BACKOFF_SECONDS", 0.0001)
    yield


class Lab:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kube = FakeKube(self.clock)
        self.provider = FakeProvider(self.clock)
        self.operator = self.new_operator()

    def new_operator(self, **provider_spec: object) -> Operator:
        return Operator(
            self.kube, self.provider, self.clock, timing=TIMING, provider_spec=provider_spec
        )

    async def start(self, name: str = "r", **spec: object) -> Key:
        key = self.kube.add_run(name, **spec)
        self.operator.watch()
        await self.operator.rest()
        return key

    async def pass_time(self, seconds: float, *, steps: int = 20) -> None:
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            await self.operator.rest()

    def status(self, key: Key) -> dict[str, object]:
        run = self.kube.run(key)
        assert run is not None
        return dict(run["status"])

    def is_closed(self, key: Key) -> bool:
        run = self.kube.run(key)
        return run is not None and "capibara6.dev/closed" in run["metadata"].get("labels", {})


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def test_a_run_costs_four_writes_and_none_while_it_works(lab: Lab) -> None:
    key = await lab.start()
    assert [what for _, what in lab.kube.writes] == ["metadata", "status"]
    await lab.pass_time(60)
    assert len(lab.kube.writes) == 2
    lab.provider.end_job("sbx-1")
    await lab.operator.rest()
    assert [what for _, what in lab.kube.writes[2:]] == ["status", "metadata"]
    assert lab.status(key)["phase"] == "Succeeded"
    assert lab.is_closed(key)
    assert lab.provider.sandboxes == {}
    assert lab.operator.events.told == []


async def test_a_create_whose_answer_is_lost_is_adopted(lab: Lab) -> None:
    lab.provider.faults["create"] = (Fault.UNREACHABLE, True)
    key = await lab.start()
    await lab.pass_time(5)
    assert lab.provider.created == 1
    assert lab.status(key)["sandboxID"] == "sbx-1"
    assert lab.provider.starts == {lab.provider.sandboxes["sbx-1"].lock: 1}


async def test_a_crash_between_creation_and_claim_leaves_one_sandbox(lab: Lab) -> None:
    key = lab.kube.add_run("r", held=True)
    lab.operator.watch()
    lab.kube.failing_patches = 1
    with pytest.raises(KubeError):
        await lab.operator.reconcile(key)
    assert lab.provider.created == 1
    assert "sandboxID" not in lab.status(key)
    await lab.operator.crash()
    lab.operator = lab.new_operator()
    await lab.operator.rest()
    assert lab.provider.created == 1
    assert lab.status(key)["sandboxID"] == "sbx-1"


async def test_a_restart_while_the_code_runs_writes_no_files_again(lab: Lab) -> None:
    key = await lab.start()
    await lab.operator.crash()
    lab.operator = lab.new_operator()
    await lab.operator.rest()
    lab.provider.end_job("sbx-1")
    await lab.operator.rest()
    assert lab.status(key)["phase"] == "Succeeded"
    assert sum(lab.provider.starts.values()) == 1


async def test_a_restart_between_claim_and_upload_starts_the_code(lab: Lab) -> None:
    lab.provider.faults["upload"] = (Fault.UNREACHABLE, False)
    key = await lab.start()
    assert lab.status(key)["sandboxID"] == "sbx-1"
    await lab.operator.crash()
    lab.operator = lab.new_operator()
    await lab.operator.rest()
    assert sum(lab.provider.starts.values()) == 1


async def test_of_two_operators_one_claims_and_the_other_kills_its_own(lab: Lab) -> None:
    rival = lab.new_operator()
    key = lab.kube.add_run("r", held=True)
    for each in (lab.operator, rival):
        each.watch()
    # Both have read the run and both create: the claim of the slower one is a conflict.
    await asyncio.gather(lab.operator.reconcile(key), rival.reconcile(key))
    assert lab.provider.created == 2
    await lab.operator.rest()
    await rival.rest()
    assert list(lab.provider.sandboxes) == [lab.status(key)["sandboxID"]]
    assert sum(lab.provider.starts.values()) == 1


async def test_a_full_provider_makes_runs_wait_in_the_queue(lab: Lab) -> None:
    lab.provider.faults["create"] = (Fault.CAPACITY, False)
    key = await lab.start()
    status = lab.status(key)
    assert status["phase"] == "Queued"
    assert "in use" in status["queue"]["reason"]  # type: ignore[index]
    await lab.pass_time(10)
    assert lab.status(key)["phase"] == "Running"


async def test_the_limit_is_kept_and_a_released_slot_wakes_the_next(lab: Lab) -> None:
    keys = [await lab.start(f"r{number}") for number in range(3)]
    assert [lab.status(key)["phase"] for key in keys] == ["Running", "Running", "Queued"]
    lab.provider.end_job(str(lab.status(keys[0])["sandboxID"]))
    await lab.operator.rest()
    assert [lab.status(key)["phase"] for key in keys] == ["Succeeded", "Running", "Running"]


async def test_a_restarted_operator_counts_the_slots_in_use(lab: Lab) -> None:
    for number in range(2):
        await lab.start(f"r{number}")
    await lab.operator.crash()
    lab.operator = lab.new_operator()
    key = await lab.start("late")
    assert lab.status(key)["phase"] == "Queued"


async def test_an_unreachable_provider_fails_the_start_after_its_deadline(lab: Lab) -> None:
    for _ in range(2):
        lab.provider.faults["create"] = (Fault.UNREACHABLE, False)
        if _ == 0:
            key = await lab.start()
            assert lab.status(key)["reason"] == "ProviderUnreachable"
    for _ in range(70):
        lab.provider.faults["list"] = (Fault.UNREACHABLE, False)
        lab.clock.advance(1)
        await lab.operator.rest()
    lab.provider.faults.clear()
    await lab.pass_time(40)
    status = lab.status(key)
    assert (status["phase"], status["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert lab.is_closed(key)
    reasons = {reason for _, reason, _ in lab.operator.events.told}
    assert reasons == {"ProviderUnreachable", "StartDeadlineExceeded"}


async def test_a_refused_key_fails_at_once(lab: Lab) -> None:
    lab.provider.faults["create"] = (Fault.UNAUTHENTICATED, False)
    key = await lab.start()
    assert lab.status(key)["reason"] == "AuthenticationFailed"
    assert lab.is_closed(key)


async def test_a_sandbox_that_vanishes_before_the_code_is_replaced_for_free(lab: Lab) -> None:
    lab.provider.faults["upload"] = (Fault.NOT_FOUND, False)
    key = lab.kube.add_run("r")
    lab.operator.watch()
    await lab.operator.rest()
    status = lab.status(key)
    assert status["attempt"] == 2
    assert [each["number"] for each in status["attempts"]] == [1]  # type: ignore[attr-defined]
    assert status["phase"] == "Running"
    assert list(lab.provider.sandboxes) == ["sbx-2"]
    lab.provider.end_job("sbx-2")
    await lab.operator.rest()
    attempts = lab.status(key)["attempts"]
    assert [each["number"] for each in attempts] == [1, 2]  # type: ignore[attr-defined]


async def test_a_sandbox_that_vanishes_while_the_code_runs_is_lost(lab: Lab) -> None:
    key = await lab.start()
    lab.provider.vanish("sbx-1")
    await lab.operator.rest()
    status = lab.status(key)
    assert (status["phase"], status["reason"]) == ("Failed", "SandboxLost")
    assert lab.is_closed(key)
    assert lab.provider.created == 1


async def test_a_lost_connection_is_made_again_where_the_log_was(lab: Lab) -> None:
    key = await lab.start()
    lab.provider.faults["stream"] = (Fault.UNREACHABLE, False)
    lab.provider.end_job("sbx-1")
    await lab.operator.rest()
    status = lab.status(key)
    assert status["phase"] == "Succeeded"
    assert status["result"]["stdout"]["tail"] == "out\n"  # type: ignore[index]
    assert sum(lab.provider.starts.values()) == 1


async def test_a_silent_sandbox_is_ended_at_the_deadline(lab: Lab) -> None:
    key = await lab.start(activeDeadlineSeconds=10)
    await lab.pass_time(39)
    assert lab.status(key)["phase"] == "Running"
    await lab.pass_time(5)
    assert lab.status(key)["reason"] == "DeadlineExceeded"
    assert lab.provider.sandboxes == {}


async def test_deletion_lets_go_after_a_time_when_the_provider_is_down(lab: Lab) -> None:
    key = await lab.start()
    lab.kube.delete_run(key)
    lab.operator.watch()
    for _ in range(30):
        lab.provider.faults["kill"] = (Fault.UNREACHABLE, False)
        await lab.operator.rest()
        lab.clock.advance(1)
    lab.provider.faults.clear()
    assert lab.kube.run(key) is None
    warnings = [message for _, _, message in lab.operator.events.told]
    assert any("could not be destroyed" in message for message in warnings)
    assert list(lab.provider.sandboxes) == ["sbx-1"]
    lab.clock.advance(60)
    assert await lab.operator.sweep_once() == 0  # seen once
    assert await lab.operator.sweep_once() == 1  # seen twice
    assert lab.provider.sandboxes == {}


async def test_the_sweep_leaves_what_a_run_owns_or_may_still_claim(lab: Lab) -> None:
    await lab.start()
    lab.clock.advance(90)
    for _ in range(3):
        assert await lab.operator.sweep_once() == 0


async def test_an_output_object_that_cannot_be_stored_is_told(lab: Lab) -> None:
    key = await lab.start()
    sandbox = lab.provider.sandboxes["sbx-1"]
    lab.provider._append(sandbox, type="output", stream="stdout", text="x" * 5000)
    lab.kube.objects["configmaps", Key("ns", "r-output")] = {"metadata": {"uid": "other"}}
    lab.provider.end_job("sbx-1")
    await lab.operator.rest()
    status = lab.status(key)
    assert status["phase"] == "Succeeded"
    assert "ref" not in status["outputs"][0]  # type: ignore[index]
    assert [reason for _, reason, _ in lab.operator.events.told] == ["OutputTooLarge"]


async def test_a_conflict_of_the_idempotency_key_is_waited_out(lab: Lab) -> None:
    lab.provider.faults["create"] = (Fault.CONFLICT, False)
    key = await lab.start()
    assert lab.status(key)["phase"] == "Starting"
    assert lab.provider.created == 0
    await lab.pass_time(58)
    assert lab.provider.created == 0
    lab.provider.faults["create"] = (Fault.CONFLICT, False)
    await lab.pass_time(10)
    assert lab.provider.created == 1
    (used,) = lab.provider.keys
    assert used.endswith("-1-1")
    assert lab.status(key)["phase"] == "Running"


async def test_a_conflict_that_never_ends_fails_the_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(_: object) -> None:
        raise SandboxError(Fault.CONFLICT, "unprocessable", 422)

    monkeypatch.setattr(lab.provider, "create", create)
    key = await lab.start()
    await lab.pass_time(50)
    assert lab.status(key)["phase"] == "Starting"
    await lab.pass_time(70)
    status = lab.status(key)
    assert (status["phase"], status["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert lab.is_closed(key)
    assert lab.provider.created == 0


ONE_AT_A_TIME = {"maxConcurrentSandboxes": 1, "createsPerSecond": 1}


async def test_a_slot_that_is_free_before_the_rate_allows_it_is_not_forgotten(lab: Lab) -> None:
    lab.operator = lab.new_operator(limits=ONE_AT_A_TIME)
    keys = [await lab.start(f"r{number}") for number in range(3)]
    lab.clock.advance(0.2)
    for key in keys:
        lab.provider.end_job(str(lab.status(key)["sandboxID"]))
        await lab.operator.rest()
        await lab.pass_time(2)
    assert [lab.status(key)["phase"] for key in keys] == ["Succeeded"] * 3


async def test_a_run_that_was_closed_elsewhere_while_we_start_keeps_no_slot(lab: Lab) -> None:
    lab.operator = lab.new_operator(limits=ONE_AT_A_TIME)
    done = await lab.start("done")
    waits = await lab.start("waits")
    await lab.operator.crash()
    lab.operator = lab.new_operator(limits=ONE_AT_A_TIME)
    await lab.operator.reconcile(waits)
    del lab.kube.objects["sandboxruns", done]
    lab.operator.watch()
    await lab.operator.rest()
    await lab.pass_time(5)
    assert lab.status(waits)["phase"] == "Running"


async def test_a_log_that_is_out_of_reach_for_a_moment_is_not_read_twice(lab: Lab) -> None:
    key = await lab.start()
    sandbox = lab.provider.sandboxes["sbx-1"]
    lab.provider._append(sandbox, type="output", stream="stdout", text="early\n")
    await lab.operator.rest()
    lab.provider.faults["stream"] = (Fault.NOT_FOUND, False)
    lab.provider.end_job("sbx-1")
    await lab.pass_time(5)
    status = lab.status(key)
    assert status["phase"] == "Succeeded"
    assert status["result"]["stdout"]["tail"] == "early\nout\n"  # type: ignore[index]


async def test_a_sandbox_that_is_there_but_never_answers_is_asked_ever_less(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def follow(*_: object) -> AsyncIterator[str]:
        nonlocal asked
        asked += 1
        raise SandboxError(Fault.NOT_FOUND, "no such host")
        yield ""

    monkeypatch.setattr(lab.provider, "follow", follow)
    key = await lab.start()
    await lab.pass_time(60, steps=60)
    assert lab.status(key)["phase"] == "Running"
    assert 4 <= asked <= 10


async def test_inputs_that_may_not_be_read_are_told_and_end_the_wait(lab: Lab) -> None:
    lab.kube.forbidden = frozenset({"secrets"})
    ref = {"name": "s", "key": "k"}
    key = await lab.start(env=[{"name": "A", "valueFrom": {"secretKeyRef": ref}}])
    assert "may not read Secret s" in str(lab.status(key)["message"])
    await lab.pass_time(70)
    assert lab.status(key)["reason"] == "StartDeadlineExceeded"
    assert lab.is_closed(key)


async def test_an_orphan_that_cannot_be_killed_does_not_keep_the_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [await lab.start(name) for name in ("a", "b")]
    kill = lab.provider.kill

    async def stubborn(sandbox_id: str) -> bool:
        if sandbox_id == "sbx-1":
            raise SandboxError(Fault.UNREACHABLE, "it does not want to", 500)
        return await kill(sandbox_id)

    monkeypatch.setattr(lab.provider, "kill", stubborn)
    await lab.operator.crash()
    for key in keys:
        del lab.kube.objects["sandboxruns", key]
    lab.operator = lab.new_operator()
    lab.clock.advance(90)
    assert [await lab.operator.sweep_once() for _ in range(2)] == [0, 1]
    assert list(lab.provider.sandboxes) == ["sbx-1"]


async def test_a_provider_slow_to_describe_a_sandbox_does_not_hold_up_the_code(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(_: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(execute, "_FACTS_SECONDS", 0.01)
    monkeypatch.setattr(lab.provider, "get", get)
    async with asyncio.timeout(2):
        key = await lab.start()
    assert sum(lab.provider.starts.values()) == 1
    assert lab.status(key)["phase"] == "Running"
