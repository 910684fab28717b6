"""Random events, duplicates, faults, crashes and two operators at once: what must always hold.

Code is never started twice for an attempt, a result never changes, every status is readable for
waiters, and in the end nothing is left at the provider and every run is closed or gone.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from capibara_operator.controllers.runs import stream
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.sandboxes import Fault
from capibara_operator.runtime.controller import Result
from support.run_fakes import FakeClock, FakeKube, FakeProvider
from support.run_operator import Operator

TIMING = Timing(start_deadline=60, reference_grace=5, collect_grace=30, release_after=10**6)
EXAMPLES = int(os.environ.get("CAPIBARA_TEST_EXAMPLES", "25"))
CALLS = ("create", "get", "list", "kill", "upload", "read", "follow", "stream")
RUNS = st.integers(0, 2)
OPERATORS = st.integers(0, 1)


class RunMachine(RuleBasedStateMachine):
    @initialize(idempotent=st.booleans())
    def begin(self, idempotent: bool) -> None:
        self.loop = asyncio.Runner()
        self.clock = FakeClock()
        self.kube = FakeKube(self.clock)
        self.provider = FakeProvider(self.clock, idempotent=idempotent)
        self.keys: list[Key] = []
        self.operators = [self._operator(), self._operator()]

    @rule(held=st.booleans())
    def create_run(self, held: bool) -> None:
        if len(self.keys) < 3:
            name = f"r{len(self.keys)}"
            self.keys.append(self.kube.add_run(name, held=held, activeDeadlineSeconds=50))

    @rule(which=OPERATORS)
    def watch(self, which: int) -> None:
        self.operators[which].watch()

    @rule(which=OPERATORS, run=RUNS, failing=st.sampled_from([0, 0, 1]))
    def reconcile(self, which: int, run: int, failing: int) -> None:
        if run < len(self.keys):
            self.kube.failing_patches = failing
            self._do(self._together([self.operators[which].reconcile(self.keys[run])]))
            self.kube.failing_patches = 0

    @rule(run=RUNS, call=st.sampled_from(CALLS), turns=st.integers(0, 8))
    def race(self, run: int, call: str, turns: int) -> None:
        """Both operators work on one run at the same time; one of their calls takes longer."""
        if run < len(self.keys):
            self.provider.delays = {call: turns}
            both = [each.reconcile(self.keys[run]) for each in self.operators]
            self._do(self._together(both))
            self.provider.delays = {}

    @rule(which=OPERATORS)
    def rest(self, which: int) -> None:
        self.operators[which].watch()
        self._do(self.operators[which].rest())

    @rule(which=OPERATORS)
    def crash(self, which: int) -> None:
        self._do(self.operators[which].crash())
        self.operators[which] = self._operator()

    @rule(call=st.sampled_from(CALLS), after=st.booleans())
    def break_next_call(self, call: str, after: bool) -> None:
        self.provider.faults[call] = (Fault.UNREACHABLE, after)

    @rule(code=st.sampled_from([0, 1]))
    def end_a_job(self, code: int) -> None:
        for sandbox_id in list(self.provider.sandboxes)[:1]:
            self.provider.end_job(sandbox_id, code)
            self._do(asyncio.sleep(0.001))

    @rule(seconds=st.sampled_from([1, 5, 40]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(run=RUNS)
    def cancel(self, run: int) -> None:
        if run < len(self.keys):
            current = self.kube.run(self.keys[run])
            closed = current and "labels" in current["metadata"]
            if current and not closed:
                self.kube.edit(self.keys[run], cancel=True)

    @rule(run=RUNS)
    def delete(self, run: int) -> None:
        if run < len(self.keys):
            self.kube.delete_run(self.keys[run])

    @rule()
    def lose_a_sandbox(self) -> None:
        for sandbox_id in list(self.provider.sandboxes)[:1]:
            self.provider.vanish(sandbox_id)

    @invariant()
    def never_starts_twice(self) -> None:
        if hasattr(self, "provider"):
            assert all(count == 1 for count in self.provider.starts.values())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self._do(self._recover())
            assert self.provider.sandboxes == {}
            for run in self.kube.runs():
                assert run["status"].get("completionTime"), run
                assert run["metadata"]["labels"]["capibara6.dev/closed"] == "true"
                assert not run["metadata"].get("finalizers")
        finally:
            for each in self.operators:
                self._do(each.crash())
            self.loop.close()

    async def _recover(self) -> None:
        """The weather clears: one operator is left, calls succeed, code ends, sweeps run."""
        await self.operators[1].crash()
        operator = self.operators[0]
        for _ in range(30):
            self.provider.faults.clear()
            operator.watch()
            await operator.rest()
            for sandbox_id in list(self.provider.sandboxes):
                self.provider.end_job(sandbox_id)
            self.clock.advance(35)
            await operator.rest()
            await operator.sweep_once()

    async def _together(self, calls: list[Any]) -> None:
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            # The work queue tries again after such an error.
            assert outcome is None or isinstance(outcome, (Result, KubeError)), outcome

    def _operator(self) -> Operator:
        return Operator(self.kube, self.provider, self.clock, timing=TIMING)

    def _do(self, coroutine: Any) -> None:
        self.loop.run(coroutine)


def test_runs_survive_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FIRST_BACKOFF_SECONDS", 0.0001)
    monkeypatch.setattr(stream, "_LAST_BACKOFF_SECONDS", 0.0001)
    machine = RunMachine.TestCase
    machine.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()
