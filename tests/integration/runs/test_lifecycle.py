"""Crashes, deletions and cancellations: one sandbox for each attempt, and none left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from support.run_world import World, eventually

FINALIZER = "capibara6.dev/finalizer"
SLOW = {"language": "bash", "code": "echo started; sleep 8; echo ended"}
ENDLESS = {"language": "bash", "code": "echo started; sleep 600", "activeDeadlineSeconds": 900}


@pytest.fixture
def started(own_world: World) -> World:
    own_world.operator.start()
    return own_world


def sandboxes_ever(world: World) -> set[str]:
    """Every sandbox that sandboxd ever had, living or ended."""
    lines = [json.loads(line) for line in world.sandboxd.log.splitlines() if line.startswith("{")]
    ended = {each["sandbox"] for each in lines if each["message"] == "sandbox ended"}
    return ended | {str(each["sandboxID"]) for each in world.sandboxd.sandboxes()}


def has_code_started(world: World, name: str) -> None:
    world.wait_phase(name, "Running")
    eventually(lambda: world.sandboxes(name), f"{name} has a sandbox")


def test_kill_9_while_the_code_runs_changes_nothing_in_the_result(started: World) -> None:
    before = sandboxes_ever(started)
    started.run("survivor", **SLOW)
    has_code_started(started, "survivor")
    claimed = started.status("survivor")["sandboxID"]
    started.operator.kill9()
    assert started.status("survivor")["phase"] == "Running"
    started.operator.start()
    status = started.wait_closed("survivor")["status"]
    assert (status["phase"], status["exitCode"]) == ("Succeeded", 0)
    assert status["result"]["stdout"]["tail"] == "started\nended\n"
    assert status["sandboxID"] == claimed
    assert status["attempt"] == 1
    assert len(sandboxes_ever(started) - before) == 1
    assert started.sandboxes() == []


def test_the_code_ends_while_the_operator_is_down(started: World) -> None:
    started.run("meanwhile", language="bash", code="echo started; sleep 3; echo ended; exit 4")
    has_code_started(started, "meanwhile")
    started.operator.kill9()
    sandbox = started.status("meanwhile")["sandboxID"]
    time.sleep(5)  # longer than the code needs
    started.operator.start()
    status = started.wait_closed("meanwhile")["status"]
    assert (status["phase"], status["reason"], status["exitCode"]) == ("Failed", "NonZeroExit", 4)
    assert status["result"]["stdout"]["tail"] == "started\nended\n"
    assert status["sandboxID"] == sandbox
    assert started.sandboxes() == []


def test_kill_9_at_the_worst_moments_of_the_start(own_world: World) -> None:
    before = sandboxes_ever(own_world)
    names = [f"early-{number}" for number in range(3)]
    for name in names:
        own_world.run(name, language="bash", code="echo once; sleep 2")
    own_world.operator.start(wait_ready=False)
    # While sandboxes are being created, their answers and claims not yet there.
    eventually(own_world.sandboxes, "a first sandbox")
    own_world.operator.kill9()
    own_world.operator.start(wait_ready=False)
    # While some are claimed, and their jobs uploaded or not.
    eventually(
        lambda: any(own_world.status(name).get("sandboxID") for name in names), "a first claim"
    )
    own_world.operator.kill9()
    own_world.operator.start(wait_ready=False)
    for name in names:
        status = own_world.wait_closed(name)["status"]
        assert status["phase"] == "Succeeded", status
        assert status["result"]["stdout"]["tail"] == "once\n"
        assert status["attempt"] == 1
    assert own_world.sandboxes() == []
    assert len(sandboxes_ever(own_world) - before) == 3


def test_deleting_a_running_run_destroys_its_sandbox(started: World) -> None:
    started.run("doomed", **ENDLESS)
    has_code_started(started, "doomed")
    started.delete("doomed")
    started.wait_gone("doomed")
    assert started.sandboxes() == []


def test_deleting_while_the_operator_is_down(started: World) -> None:
    started.run("orphaned", **ENDLESS)
    has_code_started(started, "orphaned")
    started.operator.kill9()
    started.delete("orphaned")
    assert started.get("sbr", "orphaned")["metadata"]["deletionTimestamp"]
    started.operator.start()
    started.wait_gone("orphaned")
    assert started.sandboxes() == []


def test_deleting_a_run_that_waits_and_one_that_is_closed(started: World) -> None:
    started.run("waits", code="1", templateRef={"name": "nope"})
    started.wait_phase("waits", "Pending")
    started.delete("waits")
    started.wait_gone("waits")
    started.run("done", language="bash", code="true")
    started.wait_closed("done")
    started.operator.stop()
    started.delete("done")
    started.wait_gone("done")


def test_cancel_ends_a_running_run(started: World) -> None:
    started.run("cancelled", **ENDLESS)
    has_code_started(started, "cancelled")
    started.patch("cancelled", cancel=True)
    run = started.wait_closed("cancelled")
    status = run["status"]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions == {
        "Ready": "False",
        "SandboxReady": "False",
        "Succeeded": "False",
        "Stalled": "True",
    }
    assert status["observedGeneration"] == run["metadata"]["generation"] == 2
    assert started.sandboxes() == []


def test_a_vanished_sandbox_is_told(started: World) -> None:
    started.run("robbed", **ENDLESS)
    has_code_started(started, "robbed")
    (sandbox,) = started.sandboxes("robbed")
    eventually(lambda: started.status("robbed").get("sandboxID"), "it is claimed")
    started.kill_sandbox(sandbox["sandboxID"])
    status = started.wait_closed("robbed")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "SandboxLost")
    assert sandbox["sandboxID"] in status["message"]


def test_the_finalizer_survives_the_first_events(started: World) -> None:
    started.run("held", **ENDLESS)
    has_code_started(started, "held")
    for key in ("one", "two"):
        started.kubectl("-n", started.name, "annotate", "sbr", "held", f"{key}=x")
    assert started.get("sbr", "held")["metadata"]["finalizers"] == [FINALIZER]
    started.kubectl("-n", started.name, "label", "sbr", "held", "three=x")
    assert started.get("sbr", "held")["metadata"]["finalizers"] == [FINALIZER]
    started.delete("held")
    started.wait_gone("held")


def writes_of_operator(world: World, name: str) -> list[tuple[str, str]]:
    """Verb and subresource of each write to a run, from the API server's audit log."""
    found = []
    log: Path = world.cluster.audit_log
    for line in log.read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        ref = entry.get("objectRef") or {}
        if (ref.get("namespace"), ref.get("name")) != (world.name, name):
            continue
        if entry["stage"] != "ResponseComplete" or "kubectl" in entry.get("userAgent", ""):
            continue
        if entry["verb"] in {"create", "update", "patch", "delete"}:
            found.append((entry["verb"], ref.get("subresource", "")))
    return found


def test_a_successful_run_costs_four_writes_without_the_policy(started: World) -> None:
    if started.cluster.audit_log is None:
        pytest.skip("an existing cluster's audit log is not ours to read")
    started.run("cheap", language="bash", code="echo cheap")
    started.wait_closed("cheap")
    assert writes_of_operator(started, "cheap") == [
        ("patch", ""),  # finalizer
        ("patch", "status"),  # claim
        ("patch", "status"),  # result
        ("patch", ""),  # closed
    ]
    assert started.events("cheap") == []
