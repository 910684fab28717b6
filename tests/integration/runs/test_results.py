"""What a run gives back, from a real operator, API server and sandbox."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from capibara_operator.api.run import SandboxRunStatus
from capibara_operator.core.conditions import kstatus_violations
from support.run_world import World

SECRET = "s3cr3t-4711-value"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module", autouse=True)
def all_runs(shared_world: World) -> World:
    """Every run of this module, created at once: they work side by side."""
    shared_world.secret(shared_world.name, "token", value=SECRET)
    shared_world.config_map("sales", **{"sales.csv": "month,total\n1,2\n2,5\n"})
    shared_world.run("python", code="print('hello'); 6 * 7")
    shared_world.run(
        "inputs",
        language="bash",
        code='echo "$PLAIN ${#TOKEN} $(md5sum < /data/token.txt)"; cat /data/sales.csv note.txt',
        env=[
            {"name": "PLAIN", "value": "plain 'quoted' value"},
            {
                "name": "TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}},
            },
        ],
        files=[
            {
                "path": "/data/sales.csv",
                "configMapKeyRef": {"name": "sales", "key": "sales.csv"},
            },
            {"path": "/data/token.txt", "secretKeyRef": {"name": "token", "key": "value"}},
            {"path": "note.txt", "content": "a note\n"},
        ],
    )
    shared_world.run(
        "artifacts",
        language="bash",
        code="mkdir -p out; printf 'a,b\\n' > out/r.csv; head -c 5000 /dev/zero | tr '\\0' x",
        artifacts=[{"path": "out/r.csv"}, {"path": "out/absent.bin"}],
    )
    shared_world.run(
        "plot",
        code="import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()",
    )
    shared_world.run("error", code="def f():\n    raise ValueError('no good')\nf()")
    shared_world.run("exit", command=["sh", "-c", "echo trouble >&2; exit 3"])
    shared_world.run(
        "slow", language="bash", code="echo before; sleep 120", activeDeadlineSeconds=2
    )
    return shared_world


def result(status: dict[str, Any], stream: str) -> str:
    return str(status["result"][stream]["tail"])


def test_python_prints_and_has_a_value(shared_world: World) -> None:
    run = shared_world.wait_closed("python")
    status = run["status"]
    assert status["phase"] == "Succeeded"
    assert status["reason"] == "Completed"
    assert status["exitCode"] == 0
    assert status["result"]["text"] == "42"
    assert status["result"]["stdout"] == {"tail": "hello\n", "bytes": 6, "truncated": False}
    assert status["template"]["name"] == "quick-script"
    assert status["resources"] == {"cpu": "1", "memory": "256Mi"}
    assert status["detection"]["taskType"] == "QuickScript"
    assert {"create", "upload", "execute"} <= status["stages"].keys()
    assert [each["number"] for each in status["attempts"]] == [1]
    assert not shared_world.get("cm", "python-output")
    assert not run["metadata"].get("finalizers")


def test_env_and_files_reach_the_code_and_secrets_stay_there(shared_world: World) -> None:
    status = shared_world.wait_closed("inputs")["status"]
    assert status["phase"] == "Succeeded", status
    digest = hashlib.md5(SECRET.encode()).hexdigest()
    assert result(status, "stdout") == (
        f"plain 'quoted' value {len(SECRET)} {digest}  -\nmonth,total\n1,2\n2,5\na note\n"
    )
    shown = json.dumps(shared_world.list_runs()) + json.dumps(shared_world.events("inputs"))
    assert SECRET not in shown
    assert SECRET not in shared_world.operator.log()
    assert SECRET not in shared_world.operator.get("/metrics")[1]


def test_artifacts_and_long_output_go_into_an_object(shared_world: World) -> None:
    run = shared_world.wait_closed("artifacts")
    status = run["status"]
    assert status["phase"] == "Succeeded", status
    assert status["result"]["stdout"]["bytes"] == 5000
    assert status["result"]["stdout"]["truncated"] is True
    assert len(result(status, "stdout")) == 2048
    stored = shared_world.get("cm", "artifacts-output")
    assert stored["immutable"] is True
    assert stored["data"]["stdout"] == "x" * 5000
    assert base64.b64decode(stored["binaryData"]["r.csv"]) == b"a,b\n"
    assert stored["metadata"]["ownerReferences"][0]["uid"] == run["metadata"]["uid"]
    outputs = {each["name"]: each for each in status["outputs"]}
    assert outputs["r.csv"]["sha256"] == hashlib.sha256(b"a,b\n").hexdigest()
    assert outputs["r.csv"]["ref"] == {
        "kind": "ConfigMap",
        "name": "artifacts-output",
        "key": "r.csv",
    }
    event = shared_world.wait_event("artifacts", "OutputTooLarge")
    assert "out/absent.bin" in event["note"]


def test_a_plot_becomes_a_png(shared_world: World) -> None:
    status = shared_world.wait_closed("plot", seconds=150)["status"]
    assert status["phase"] == "Succeeded", status
    assert status["template"]["name"] == "visualization"
    (output,) = status["outputs"]
    assert (output["name"], output["mimeType"]) == ("display-1.png", "image/png")
    stored = shared_world.get("cm", "plot-output")
    assert base64.b64decode(stored["binaryData"]["display-1.png"]).startswith(PNG)


def test_an_exception_is_a_code_error(shared_world: World) -> None:
    status = shared_world.wait_closed("error")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "CodeError")
    error = status["result"]["error"]
    assert (error["name"], error["value"]) == ("ValueError", "no good")
    assert "line 2, in f" in error["traceback"]
    assert "ValueError: no good" in status["message"]
    assert shared_world.wait_event("error", "CodeError")["type"] == "Warning"


def test_an_exit_code_is_kept(shared_world: World) -> None:
    status = shared_world.wait_closed("exit")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "NonZeroExit")
    assert status["exitCode"] == 3
    assert result(status, "stderr") == "trouble\n"


def test_the_deadline_ends_the_code(shared_world: World) -> None:
    status = shared_world.wait_closed("slow")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert result(status, "stdout") == "before\n"
    assert "activeDeadlineSeconds" in status["message"]


def test_every_end_is_readable_for_waiters(shared_world: World) -> None:
    for run in shared_world.list_runs():
        name = run["metadata"]["name"]
        status = SandboxRunStatus.model_validate(shared_world.wait_closed(name)["status"])
        broken = kstatus_violations(
            status.conditions, generation=1, observed_generation=status.observed_generation
        )
        assert not broken, name
    wait = ("wait", "--for=condition=Ready", "sbr/python", "--timeout=1s")
    shared_world.kubectl("-n", shared_world.name, *wait)


def test_no_sandbox_is_left(shared_world: World) -> None:
    for run in shared_world.list_runs():
        shared_world.wait_closed(run["metadata"]["name"])
    assert shared_world.sandboxes() == []
