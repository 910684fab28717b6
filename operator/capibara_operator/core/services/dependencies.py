"""Which services have to be there before another one starts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from capibara_operator.api.common import Condition
from capibara_operator.api.service import DependencyCondition, ServiceDependency
from capibara_operator.core.conditions import STALLED, is_true
from capibara_operator.core.services.endpoints import ENDPOINTS_HEALTHY
from capibara_operator.core.services.model import Object, Unmet, parse_status

WORKLOAD_AVAILABLE: Final = "WorkloadAvailable"


def names_of(obj: Object | None) -> tuple[str, ...]:
    """The names that an object's ``dependsOn`` gives."""
    listed = ((obj or {}).get("spec") or {}).get("dependsOn") or []
    return tuple(str(item["name"]) for item in listed)


def find_cycle(name: str, dependencies_of: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    """A path of dependencies from a service back to itself; empty when there is none."""
    paths: list[tuple[str, ...]] = [(name,)]
    visited: set[str] = set()
    while paths:
        path = paths.pop()
        for dependency in dependencies_of(path[-1]):
            if dependency == name:
                return (*path, name)
            if dependency not in visited:
                visited.add(dependency)
                paths.append((*path, dependency))
    return ()


def unmet_of(
    dependencies: Sequence[ServiceDependency], objects: Mapping[str, Object | None]
) -> tuple[Unmet, ...]:
    """The dependencies that a service still has to wait for, in order."""
    found = (_unmet(each, objects.get(each.name)) for each in dependencies)
    return tuple(each for each in found if each is not None)


def _unmet(dependency: ServiceDependency, obj: Object | None) -> Unmet | None:
    name = dependency.name
    if obj is None:
        if dependency.optional:
            return None
        return Unmet(name, "DependencyNotFound", f"{name} does not exist in this namespace")
    if (obj.get("spec") or {}).get("suspend"):
        if dependency.optional:
            return None
        return Unmet(name, "DependencyNotReady", f"{name} is suspended")
    lack = _lack(dependency.condition, obj)
    return Unmet(name, "DependencyNotReady", f"{name} {lack}") if lack else None


def _lack(condition: DependencyCondition, obj: Object) -> str:
    """What an existing dependency lacks, as the end of a sentence; empty when nothing."""
    status = parse_status(obj)
    if status.observed_generation < obj["metadata"].get("generation", 1):
        return "is being started"
    if condition is DependencyCondition.STARTED:
        return "" if status.replicas else "has no pods yet"
    wanted = [WORKLOAD_AVAILABLE]
    if condition is DependencyCondition.ENDPOINTS_HEALTHY:
        wanted.append(ENDPOINTS_HEALTHY)
    missing = [each for each in wanted if not is_true(status.conditions, each)]
    if not missing:
        return ""
    return f"is not {_WORDS[missing[0]]} yet{_stalled(status.conditions)}"


def _stalled(conditions: Sequence[Condition]) -> str:
    return " and is stalled" if is_true(conditions, STALLED) else ""


_WORDS: Final = {WORKLOAD_AVAILABLE: "available", ENDPOINTS_HEALTHY: "healthy at all its endpoints"}
