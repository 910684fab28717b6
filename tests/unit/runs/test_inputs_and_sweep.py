"""References resolved, and who is an orphan."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from capibara_operator.api.run import SandboxRunSpec
from capibara_operator.controllers.runs import ExpirySweep
from capibara_operator.core.runs.inputs import (
    Inputs,
    Reference,
    Source,
    references,
    resolve_inputs,
    upload_files,
)
from capibara_operator.core.runs.record import parse_run
from capibara_operator.core.runs.seen import Refused, Sandbox
from capibara_operator.core.runs.sweep import Owned, condemned, is_expired, is_orphan, owned
from capibara_operator.ports.clock import SystemClock
from capibara_operator.ports.kube import Key, KubeError

SECRET, CONFIG = Reference(Source.SECRET, "s"), Reference(Source.CONFIG_MAP, "c")
SPEC = SandboxRunSpec.model_validate(
    {
        "code": "1",
        "env": [
            {"name": "A", "value": "a"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "files": [
            {"path": "f", "configMapKeyRef": {"name": "c", "key": "text"}},
            {"path": "g", "configMapKeyRef": {"name": "c", "key": "bytes"}},
            {"path": "h", "content": "ü"},
        ],
    }
)
OBJECTS: dict[Reference, Any] = {
    SECRET: {"data": {"k": base64.b64encode(b"top secret").decode()}},
    CONFIG: {"data": {"text": "t"}, "binaryData": {"bytes": base64.b64encode(b"\xff").decode()}},
}


def test_each_object_is_read_once_and_its_values_are_put_in_place() -> None:
    assert set(references(SPEC)) == {SECRET, CONFIG}
    assert len(references(SPEC)) == 2
    inputs = resolve_inputs(SPEC, OBJECTS)
    assert inputs == Inputs(
        {"A": "a", "B": "top secret"}, (("f", b"t"), ("g", b"\xff"), ("h", "ü".encode()))
    )
    assert "top secret" not in repr(inputs)


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ({SECRET: None, CONFIG: OBJECTS[CONFIG]}, "Secret s does not exist"),
        ({SECRET: {"data": {}}, CONFIG: OBJECTS[CONFIG]}, "Secret s has no key k"),
        (
            {SECRET: OBJECTS[SECRET], CONFIG: {"data": {"text": "t"}}},
            "ConfigMap c has no key bytes",
        ),
        ({SECRET: {"data": {"k": "/w=="}}, CONFIG: OBJECTS[CONFIG]}, "B is not text"),
    ],
)
def test_what_is_missing_is_named_and_waited_for(objects: Any, says: str) -> None:
    refused = resolve_inputs(SPEC, objects)
    assert isinstance(refused, Refused)
    assert refused.waits
    assert says in refused.message


def test_the_job_goes_last_and_the_runs_environment_wins() -> None:
    inputs = Inputs({"A": "run"}, (("f", b"1"),))
    files = upload_files(
        SPEC, inputs, key="u-1", deadline_seconds=5, template_env={"A": "template", "T": "t"}
    )
    assert files[0] == ("f", b"1")
    path, job = files[-1]
    assert path.endswith("/job-u-1.json")
    assert json.loads(job)["env"] == {"A": "run", "T": "t"}


def run(**status: Any) -> Any:
    metadata = {
        "namespace": "ns",
        "name": "r",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["capibara6.dev/finalizer"],
        "labels": status.pop("labels", {}),
    }
    return parse_run({"metadata": metadata, "spec": {"code": "1"}, "status": status})


MINE = Owned(Sandbox("mine"), "ns", "r", "u")


@pytest.mark.parametrize(
    ("found", "of", "want", "why"),
    [
        (MINE, None, True, "its run is gone"),
        (Owned(Sandbox("mine"), "ns", "r", "old"), run(), True, "a successor of the same name"),
        (MINE, run(), False, "the run may still claim it"),
        (MINE, run(sandboxID="mine"), False, "the run has it"),
        (MINE, run(sandboxID="other"), True, "the run has another one"),
        (MINE, run(sandboxID="mine", completionTime="2026-01-01T00:00:00Z"), False, "it closes"),
        (MINE, run(labels={"capibara6.dev/closed": "true"}), True, "the run is closed"),
    ],
)
def test_orphans(found: Owned, of: Any, want: bool, why: str) -> None:
    assert is_orphan(found, of) is want, why


def test_metadata_that_proves_nothing_owns_nothing() -> None:
    assert owned(Sandbox("x"), {"namespace": "ns", "name": "r"}) is None


def test_a_pass_kills_only_what_was_an_orphan_before_and_not_too_many() -> None:
    orphans = [Owned(Sandbox(str(number)), "ns", "r", "u") for number in range(30)]
    assert condemned(orphans, frozenset(), 30) == ((), False)
    assert condemned(orphans, {"3", "5"}, 30) == (("3", "5"), False)
    everybody = {str(number) for number in range(30)}
    doomed, capped = condemned(orphans, everybody, 30)
    assert (len(doomed), capped) == (10, True)
    doomed, capped = condemned(orphans, everybody, 200)
    assert (len(doomed), capped) == (20, True)


async def test_a_run_that_cannot_be_deleted_does_not_keep_the_others() -> None:
    class Kube:
        def __init__(self) -> None:
            self.deleted: list[str] = []

        async def list(self, *_: Any, **__: Any) -> list[Any]:
            labels = {"capibara6.dev/expires-at": "1"}
            names = ("a", "b", "c")
            return [
                {"metadata": {"namespace": "ns", "name": n, "uid": n, "labels": labels}}
                for n in names
            ]

        async def delete(self, _: Any, key: Key, *, uid: str) -> bool:
            if uid == "a":
                raise KubeError(403, "Forbidden", "a webhook says no")
            self.deleted.append(key.name)
            return True

    kube: Any = Kube()
    assert await ExpirySweep(kube=kube, clock=SystemClock()).sweep() == 2
    assert kube.deleted == ["b", "c"]


@pytest.mark.parametrize(("label", "want"), [("100", True), ("101", False), ("soon", False)])
def test_expiry(label: str, want: bool) -> None:
    now = datetime.fromtimestamp(100, UTC)
    assert is_expired({"labels": {"capibara6.dev/expires-at": label}}, now) is want
    assert not is_expired({}, now)
