from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from capibara_operator.ports.kube import Key, KubeError, Resource
from capibara_operator.ports.resources import SANDBOX_PROVIDERS, SANDBOX_RUNS
from capibara_operator.runtime.feed import Feed, compare_all
from capibara_operator.runtime.store import key_of

Run = Callable[[Any], Any]


def run(name: str, version: int, *, uid: str = "") -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
        },
        "spec": {"code": "x"},
    }


@dataclass
class FakeLists:
    """Only lists; fails as long as ``errors`` has any."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    errors: list[KubeError] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def list(self, resource: Resource, **arguments: Any) -> list[dict[str, Any]]:
        self.calls.append(arguments)
        if self.errors:
            raise self.errors.pop(0)
        wanted = arguments.get("field_selector", "").removeprefix("metadata.name=")
        found = [o for o in self.objects if not wanted or o["metadata"]["name"] == wanted]
        return copy.deepcopy(found)


def feed(**arguments: Any) -> tuple[Feed, list[Key]]:
    keys: list[Key] = []
    made = Feed(SANDBOX_RUNS, lambda obj: keys.append(key_of(obj)), "!closed", **arguments)
    return made, keys


def test_events_reach_the_store_and_the_queue_but_echoes_do_not() -> None:
    runs, keys = feed()
    runs.saw("ADDED", run("a", 1))
    runs.saw("MODIFIED", run("a", 1))
    runs.saw("MODIFIED", run("a", 2))
    runs.saw("DELETED", run("a", 3))
    runs.saw("DELETED", run("a", 3))
    assert keys == [Key("ns", "a")] * 3
    assert len(runs.store) == 0


def test_the_first_list_is_tried_until_it_succeeds_and_says_what_is_wrong(
    run_virtual: Run,
) -> None:
    async def scenario() -> None:
        runs, keys = feed()
        errors = [KubeError(403, "Forbidden", "may not list"), KubeError(404, "NotFound", "what?")]
        kube = FakeLists([run("a", 1), run("b", 2)], errors)
        filling = asyncio.create_task(runs.fill(kube))
        await asyncio.sleep(0.1)
        assert "403 Forbidden: may not list" in runs.problem
        assert "ClusterRole" in runs.problem
        await asyncio.sleep(0.5)
        assert "kubectl apply -f crds/" in runs.problem
        assert not runs.store.synced.is_set()
        await filling
        assert runs.problem == ""
        assert runs.store.synced.is_set()
        assert keys == [Key("ns", "a"), Key("ns", "b")]
        assert kube.calls[-1]["label_selector"] == "!closed"

    run_virtual(scenario())


def test_each_served_namespace_is_listed_and_cluster_scoped_kinds_once(run_virtual: Run) -> None:
    async def scenario() -> None:
        kube = FakeLists()
        await feed(namespaces=["x", "y"])[0].fill(kube)
        assert [call["namespace"] for call in kube.calls] == ["x", "y"]
        kube.calls.clear()
        await Feed(SANDBOX_PROVIDERS, lambda _: None, namespaces=["x", "y"]).fill(kube)
        assert [call["namespace"] for call in kube.calls] == [""]

    run_virtual(scenario())


def test_comparing_finds_what_was_deleted_in_a_gap_of_the_watch(run_virtual: Run) -> None:
    async def scenario() -> None:
        runs, keys = feed()
        for obj in (run("kept", 1), run("gone", 2), run("replaced", 3, uid="old")):
            runs.saw(None, obj)
        keys.clear()
        kube = FakeLists([run("kept", 1), run("replaced", 9, uid="new")])
        assert await runs.compare(kube) == 3
        assert sorted(keys) == [Key("ns", "gone"), *[Key("ns", "replaced")] * 2]
        assert (runs.store.get(Key("ns", "replaced")) or {})["metadata"]["uid"] == "new"
        assert kube.calls[0]["metadata_only"] is True
        assert await runs.compare(kube) == 0

    run_virtual(scenario())


def test_comparing_gives_the_watch_a_moment_to_catch_up(run_virtual: Run) -> None:
    async def scenario() -> None:
        runs, keys = feed()
        kube = FakeLists([run("a", 5)])
        comparing = asyncio.create_task(runs.compare(kube))
        await asyncio.sleep(1)
        runs.saw("ADDED", run("a", 5))
        assert await comparing == 0
        assert len(kube.calls) == 1, "nothing was read once more"
        assert keys == [Key("ns", "a")]

    run_virtual(scenario())


def test_comparing_finds_a_change_that_the_watch_never_told(run_virtual: Run) -> None:
    async def scenario() -> None:
        runs, keys = feed()
        runs.saw(None, run("a", 1))
        assert await runs.compare(FakeLists([run("a", 2), run("b", 3)])) == 2
        assert keys == [Key("ns", "a"), Key("ns", "a"), Key("ns", "b")]

    run_virtual(scenario())


def test_an_object_created_during_the_comparison_is_not_dropped(run_virtual: Run) -> None:
    async def scenario() -> None:
        runs, _ = feed()

        class Late(FakeLists):
            async def list(self, resource: Resource, **arguments: Any) -> list[dict[str, Any]]:
                runs.saw("ADDED", run("new", 9))
                return []

        assert await runs.compare(Late()) == 0
        assert Key("ns", "new") in runs.store

    run_virtual(scenario())


def test_the_periodic_comparison_survives_errors(run_virtual: Run) -> None:
    async def scenario() -> None:
        runs, _ = feed()
        runs.saw(None, run("gone", 1))
        kube = FakeLists(errors=[KubeError(0, "Unreachable", "down")])
        comparing = asyncio.create_task(compare_all(kube, [runs], seconds=60))
        await asyncio.sleep(61)
        assert len(runs.store) == 1
        await asyncio.sleep(60)
        assert len(runs.store) == 0
        comparing.cancel()

    run_virtual(scenario())
