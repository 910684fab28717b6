"""What the pods of a service tell."""

from collections.abc import Iterable, Sequence
from typing import Final

from capibara_operator.core.services.model import Object, Pod

_MAX_DETAIL_LENGTH: Final = 200
_MAX_PROBLEMS: Final = 3
_WAITING_IS_NORMAL: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
# The kubelet alternates between these two while it tries; one name makes one status.
_SAME_REASON: Final = {"ErrImagePull": "ImagePullBackOff"}


def parse_pod(obj: Object) -> Pod:
    """Read a pod."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    ready = conditions.get("Ready", {}).get("status") == "True"
    return Pod(
        name=metadata["name"],
        ip=status.get("podIP", ""),
        ready=ready,
        running=status.get("phase") == "Running",
        terminating="deletionTimestamp" in metadata,
        host_network=bool(spec.get("hostNetwork")),
        problem="" if ready else _problem(status, conditions),
    )


def controller_of(obj: Object, kind: str) -> tuple[str, str]:
    """Name and uid of the object of that kind that controls ``obj``; empty strings for none."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller") and owner.get("kind") == kind:
            return owner["name"], owner["uid"]
    return "", ""


def probe_targets(pods: Iterable[Pod]) -> tuple[str, ...]:
    """IP addresses of the pods to probe: those that get traffic, or else those that run."""
    running = [
        pod
        for pod in pods
        if pod.running and pod.ip and not pod.terminating and not pod.host_network
    ]
    chosen = [pod for pod in running if pod.ready] or running
    return tuple(sorted({pod.ip for pod in chosen}))


def problems(pods: Sequence[Pod]) -> str:
    """What keeps the pods from working, in words; empty when nothing is known."""
    found = sorted(
        f"pod {pod.name}: {pod.problem}" for pod in pods if pod.problem and not pod.terminating
    )
    more = len(found) - _MAX_PROBLEMS
    return "; ".join(found[:_MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _problem(status: Object, conditions: Object) -> str:
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    found = next(filter(None, map(_container_problem, containers)), "")
    scheduled = conditions.get("PodScheduled", {})
    if not found and scheduled.get("status") == "False":
        return _with(scheduled.get("reason", "Unschedulable"), scheduled.get("message", ""))
    return found


def _container_problem(container: Object) -> str:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    # A crashing container passes through waiting, running and terminated again and again.
    if (
        last
        and not container.get("ready")
        and (container.get("restartCount") or "running" not in state)
    ):
        return _with("CrashLoopBackOff", _exit(last))
    if reason in _WAITING_IS_NORMAL:
        return ""
    return _with(_SAME_REASON.get(reason, reason), _image_detail(container, waiting, reason))


def _exit(terminated: Object) -> str:
    reason = terminated.get("reason", "")
    detail = f"exit code {terminated.get('exitCode')}"
    return detail if reason in {"", "Error", "Completed"} else f"{reason}, {detail}"


def _image_detail(container: Object, waiting: Object, reason: str) -> str:
    if reason in {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}:
        return f"image {container.get('image', '')!r}"
    return str(waiting.get("message", ""))


def _with(reason: str, detail: str) -> str:
    text = " ".join(detail.split())[:_MAX_DETAIL_LENGTH]
    return f"{reason} ({text})" if text else reason
