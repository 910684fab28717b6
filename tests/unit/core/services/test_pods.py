"""What is read from pods, and what is not."""

from dataclasses import dataclass
from typing import Any

import pytest

from capibara_operator.core.services.pods import (
    controller_of,
    parse_pod,
    probe_targets,
    problems,
)


def manifest(
    *, name: str = "p", ip: str = "10.0.0.1", ready: bool = False, **more: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if more.pop("terminating", False):
        metadata["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"hostNetwork": more.pop("host_network", False)},
        "status": {
            "phase": more.pop("phase", "Running"),
            "podIP": ip,
            "conditions": [
                {"type": "Ready", "status": str(ready)},
                *more.pop("conditions", []),
            ],
            "containerStatuses": [more] if more else [],
        },
    }


@dataclass(frozen=True)
class Case:
    reason: str
    container: dict[str, Any]
    want: str


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"image": "web:1", "state": {"waiting": {"reason": reason, "message": message}}}


CRASHED = {"terminated": {"exitCode": 1, "reason": "Error"}}
CASES = [
    Case("being created is no problem", waiting("ContainerCreating"), ""),
    Case("an image", waiting("ImagePullBackOff", "Back-off"), "ImagePullBackOff (image 'web:1')"),
    Case(
        "the two names of one failed pull are one",
        waiting("ErrImagePull", "denied"),
        "ImagePullBackOff (image 'web:1')",
    ),
    Case(
        "an image that may not be pulled",
        waiting("ErrImageNeverPull"),
        "ErrImageNeverPull (image 'web:1')",
    ),
    Case(
        "a configuration error brings its message",
        waiting("CreateContainerConfigError", 'secret "x" not found'),
        'CreateContainerConfigError (secret "x" not found)',
    ),
    Case(
        "a crash loop brings the exit code",
        waiting("CrashLoopBackOff") | {"restartCount": 3, "lastState": CRASHED},
        "CrashLoopBackOff (exit code 1)",
    ),
    Case(
        "the same while it runs between two crashes",
        {"restartCount": 3, "state": {"running": {}}, "lastState": CRASHED},
        "CrashLoopBackOff (exit code 1)",
    ),
    Case(
        "the same at its very end",
        {"restartCount": 0, "state": CRASHED},
        "CrashLoopBackOff (exit code 1)",
    ),
    Case(
        "out of memory is named",
        {
            "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        },
        "CrashLoopBackOff (OOMKilled, exit code 137)",
    ),
    Case("the first start is no problem", {"restartCount": 0, "state": {"running": {}}}, ""),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
def test_problem(case: Case) -> None:
    assert parse_pod(manifest(**case.container)).problem == case.want


def test_a_ready_pod_has_no_problem_though_it_crashed_once() -> None:
    assert parse_pod(manifest(ready=True, restartCount=1, lastState=CRASHED)).problem == ""


def test_a_pod_without_a_node_says_why() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient memory.",
    }
    found = parse_pod(manifest(phase="Pending", conditions=[condition]))
    assert found.problem == "Unschedulable (0/1 nodes are available: 1 Insufficient memory.)"


def test_problems_are_named_and_bounded() -> None:
    pods = [parse_pod(manifest(name=f"p{n}", **waiting("ErrImageNeverPull"))) for n in range(5)]
    text = problems(pods)
    assert text.startswith("pod p0: ErrImageNeverPull (image 'web:1'); pod p1: ")
    assert text.endswith("; and 2 more")
    assert problems([parse_pod(manifest(terminating=True, **waiting("ErrImageNeverPull")))]) == ""


def test_ready_pods_are_probed_or_else_running_ones() -> None:
    ready = parse_pod(manifest(ip="10.0.0.1", ready=True))
    starting = parse_pod(manifest(ip="10.0.0.2"))
    assert probe_targets([ready, starting]) == ("10.0.0.1",)
    assert probe_targets([starting]) == ("10.0.0.2",)


@pytest.mark.parametrize(
    "pod",
    [
        manifest(ready=True, host_network=True),
        manifest(ready=True, terminating=True),
        manifest(ready=True, ip=""),
        manifest(phase="Pending"),
        manifest(phase="Failed"),
    ],
    ids=["on the host's network", "terminating", "no address", "pending", "failed"],
)
def test_pods_that_are_never_probed(pod: dict[str, Any]) -> None:
    assert probe_targets([parse_pod(pod)]) == ()


def test_only_the_controller_owns() -> None:
    owners = [
        {"kind": "ReplicaSet", "name": "other", "uid": "1"},
        {"kind": "ReplicaSet", "name": "rs", "uid": "2", "controller": True},
    ]
    obj = {"metadata": {"ownerReferences": owners}}
    assert controller_of(obj, "ReplicaSet") == ("rs", "2")
    assert controller_of(obj, "Deployment") == ("", "")
    assert controller_of({"metadata": {}}, "ReplicaSet") == ("", "")
