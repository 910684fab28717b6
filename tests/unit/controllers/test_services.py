"""The services' reconciler against a small API server in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.controllers.services.observe import Stores
from capibara_operator.controllers.services.reconciler import ServiceReconciler
from capibara_operator.core.services.probing import Check
from capibara_operator.ports.kube import Key, KubeError, Manifest, Resource
from capibara_operator.ports.resources import (
    CAPIBARA_SERVICES,
    DEPLOYMENTS,
    PODS,
    SERVICES,
)
from capibara_operator.runtime.store import Store

BACKEND = Key("shop", "backend")


@dataclass
class Kube:
    """Objects by kind; every write is noted, and the next one may be refused."""

    objects: dict[tuple[str, Key], Manifest] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    refusal: KubeError | None = None
    version: int = 100

    async def get(self, resource: Resource, key: Key) -> Manifest | None:
        return self.objects.get((resource.kind, key))

    async def apply(self, resource: Resource, obj: Manifest) -> Manifest:
        if self.refusal is not None:
            raise self.refusal
        key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
        self.writes.append(f"apply {resource.kind}")
        before = self.objects.get((resource.kind, key), {})
        spec = {"replicas": 1} | before.get("spec", {}) | obj["spec"]
        return self._store(resource, key, {**obj, "spec": spec, "status": before.get("status", {})})

    async def patch(
        self, resource: Resource, key: Key, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest | None:
        self.writes.append(f"{subresource} {resource.kind}")
        before = self.objects.get((resource.kind, key))
        if before is None:
            return None
        part = before.get("status", {}) | body.get("status", {})
        status = {name: value for name, value in part.items() if value is not None}
        spec = before["spec"] | body.get("spec", {})
        return self._store(resource, key, {**before, "spec": spec, "status": status})

    def _store(self, resource: Resource, key: Key, obj: Manifest) -> Manifest:
        self.version += 1
        metadata = {"uid": f"uid-{resource.kind}", "generation": 1, **obj["metadata"]}
        metadata["resourceVersion"] = str(self.version)
        stored = {**obj, "metadata": metadata}
        self.objects[resource.kind, key] = stored
        return {**stored, "metadata": dict(metadata)}


@dataclass
class Probed:
    """Notes what is to be probed; answers what it is given."""

    ips: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    found: dict[str, EndpointStatus] = field(default_factory=dict)

    def watch(self, key: Key, *, checks: Sequence[Check], ips: Sequence[str], known: Any) -> None:
        self.ips[key] = tuple(ips)

    def forget(self, key: Key) -> None:
        self.ips.pop(key, None)

    def results(self, key: Key) -> Mapping[str, EndpointStatus]:
        return self.found

    def listen(self, wake: Any) -> None:
        return


@dataclass
class Events:
    reasons: list[str] = field(default_factory=list)

    def event(self, obj: Manifest, *, warning: bool, reason: str, message: str) -> None:
        self.reasons.append(reason)


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class World:
    """A reconciler with all that it talks to."""

    def __init__(self) -> None:
        self.kube, self.probed, self.events = Kube(), Probed(), Events()
        self.enqueued: list[Key] = []
        self.stores = Stores(
            services=Store(CAPIBARA_SERVICES),
            deployments=Store(DEPLOYMENTS),
            fronts=Store(SERVICES),
            pods=Store(PODS),
        )
        self.reconciler = ServiceReconciler(
            stores=self.stores,
            kube=self.kube,  # type: ignore[arg-type]
            recorder=self.events,
            clock=Clock(),
            prober=self.probed,
        )
        self.reconciler.bind(self.enqueued.append)

    def add(self, name: str = "backend", **spec: Any) -> Key:
        key = Key("shop", name)
        metadata = {
            "namespace": "shop",
            "name": name,
            "uid": "uid-1",
            "generation": 1,
            "resourceVersion": "1",
        }
        ports = [{"name": "http", "port": 8000}]
        obj = {"metadata": metadata, "spec": {"image": "x", "ports": ports} | spec}
        self.kube.objects["CapibaraService", key] = obj
        self.stores.services.upsert({**obj, "metadata": dict(metadata)})
        return key

    async def reconcile(self, key: Key = BACKEND) -> float | None:
        return (await self.reconciler.reconcile(key)).requeue_after

    def ready(self, key: Key = BACKEND) -> tuple[str, str]:
        obj = self.stores.services.get(key)
        assert obj is not None
        found = next(each for each in obj["status"]["conditions"] if each["type"] == "Ready")
        return found["status"], found["reason"]

    def finish(self) -> None:
        """The Deployment controller and the kubelet do their part."""
        deployment = self.kube.objects["Deployment", BACKEND]
        counts = dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1
        )
        conditions = [
            {"type": "Available", "status": "True"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ]
        done = {
            **deployment,
            "status": {"observedGeneration": 1, "conditions": conditions, **counts},
        }
        stored = self.kube._store(DEPLOYMENTS, BACKEND, done)
        self.stores.deployments.upsert(stored)

    def add_pod(self, name: str, *, ip: str, replica_set: str, label: str = "backend") -> None:
        owner = {"kind": "ReplicaSet", "name": replica_set, "uid": replica_set, "controller": True}
        pod = {
            "metadata": {
                "namespace": "shop",
                "name": name,
                "labels": {"capibara6.dev/service": label},
                "ownerReferences": [owner] if replica_set else [],
            },
            "status": {
                "phase": "Running",
                "podIP": ip,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        self.stores.pods.upsert(pod)
        self.reconciler.saw_pod(pod)

    def add_replica_set(self, name: str, *, deployment_uid: str, uid: str = "") -> None:
        owner = {"kind": "Deployment", "name": "d", "uid": deployment_uid, "controller": True}
        metadata = {"name": name, "uid": uid or name, "ownerReferences": [owner]}
        self.kube.objects["ReplicaSet", Key("shop", name)] = {"metadata": metadata}


@pytest.fixture
def world() -> World:
    return World()


async def test_a_service_costs_three_writes_and_then_none(world: World) -> None:
    world.add()
    await world.reconcile()
    assert world.kube.writes == ["apply Service", "apply Deployment", "status CapibaraService"]
    assert world.ready() == ("False", "RollingOut")
    world.finish()
    await world.reconcile()
    assert world.ready() == ("True", "Running")
    assert world.kube.writes[3:] == ["status CapibaraService"]
    for _ in range(3):
        await world.reconcile()
    assert len(world.kube.writes) == 4
    assert world.events.reasons == ["Started"]


async def test_an_operator_that_starts_anew_writes_nothing(world: World) -> None:
    world.add()
    await world.reconcile()
    world.finish()
    await world.reconcile()
    before = len(world.kube.writes)
    again = World()
    again.kube, again.stores = world.kube, world.stores
    again.reconciler = ServiceReconciler(
        stores=world.stores,
        kube=world.kube,  # type: ignore[arg-type]
        recorder=again.events,
        clock=Clock(),
        prober=again.probed,
    )
    await again.reconcile()
    assert len(world.kube.writes) == before


async def test_only_pods_of_our_own_replica_sets_are_probed(world: World) -> None:
    world.add(endpoints=[{"name": "health"}])
    await world.reconcile()
    world.finish()
    world.add_replica_set("ours", deployment_uid="uid-Deployment")
    world.add_replica_set("theirs", deployment_uid="uid-other")
    world.add_replica_set("forged", deployment_uid="uid-Deployment", uid="another-uid")
    world.add_pod("a", ip="10.0.0.1", replica_set="ours")
    world.add_pod("b", ip="10.0.0.2", replica_set="theirs")
    world.add_pod("c", ip="10.0.0.3", replica_set="forged")
    world.add_pod("d", ip="10.0.0.4", replica_set="missing")
    world.add_pod("e", ip="10.0.0.5", replica_set="")
    world.add_pod("f", ip="10.0.0.6", replica_set="ours", label="other")
    await world.reconcile()
    assert world.probed.ips[BACKEND] == ("10.0.0.1",)


async def test_a_deleted_service_is_forgotten(world: World) -> None:
    world.add()
    await world.reconcile()
    assert BACKEND in world.probed.ips
    world.stores.services.remove(BACKEND)
    assert await world.reconcile() is None
    assert world.probed.ips == {}


async def test_dependents_are_told_by_our_own_status_write(world: World) -> None:
    front = world.add("frontend", dependsOn=[{"name": "backend"}])
    await world.reconcile(front)
    assert world.ready(front) == ("False", "DependencyNotFound")
    world.add()
    await world.reconcile()
    assert world.enqueued == [front, front], "told that it is there, and what its status is"
    world.enqueued.clear()
    await world.reconcile()
    assert world.enqueued == []
    world.finish()
    await world.reconcile()
    assert world.enqueued == [front]
    await world.reconcile(front)
    assert "apply Deployment" in world.kube.writes[-2:]


async def test_a_refused_child_is_said_and_not_tried_at_once(world: World) -> None:
    world.add()
    world.kube.refusal = KubeError(422, "Invalid", "spec.x: must not be y")
    assert await world.reconcile() == 300
    assert world.ready() == ("False", "InvalidSpec")
    assert world.events.reasons == ["InvalidSpec"]
    world.kube.refusal = None
    await world.reconcile()
    assert world.ready() == ("False", "RollingOut")


async def test_a_forbidden_child_is_said_once_and_tried_again(world: World) -> None:
    world.add()
    world.kube.refusal = KubeError(403, "Forbidden", "exceeded quota")
    for _ in range(3):
        with pytest.raises(KubeError, match="exceeded quota"):
            await world.reconcile()
    assert world.ready() == ("False", "Forbidden")
    assert world.kube.writes == ["status CapibaraService"]
    assert world.events.reasons == ["Forbidden"]


async def test_an_unreachable_api_server_changes_no_status(world: World) -> None:
    world.add()
    world.kube.refusal = KubeError(0, "Unreachable", "no answer")
    with pytest.raises(KubeError):
        await world.reconcile()
    assert world.kube.writes == []


async def test_the_child_of_an_earlier_service_is_waited_for(world: World) -> None:
    world.add()
    earlier = {"kind": "CapibaraService", "uid": "uid-0", "controller": True}
    metadata = {"name": "backend", "namespace": "shop", "uid": "x", "ownerReferences": [earlier]}
    world.kube.objects["Service", BACKEND] = {"metadata": metadata, "spec": {}}
    assert await world.reconcile() == 2
    assert world.ready() == ("False", "NameTaken")
    del world.kube.objects["Service", BACKEND]
    await world.reconcile()
    assert world.ready() == ("False", "RollingOut")


async def test_a_spec_that_cannot_be_read_is_stalled(world: World) -> None:
    world.add(replicas="many")
    await world.reconcile()
    assert world.ready() == ("False", "InvalidSpec")
    assert world.kube.writes == ["status CapibaraService"]


async def test_fields_of_the_status_that_are_no_longer_true_go(world: World) -> None:
    key = world.add(endpoints=[{"name": "health"}])
    world.probed.found = {"health": EndpointStatus(name="health", state=EndpointState.HEALTHY)}
    await world.reconcile()
    stored = world.kube.objects["CapibaraService", key]
    assert stored["status"]["endpointSummary"] == "1/1"
    spec = {**stored["spec"], "endpoints": []}
    changed = world.kube._store(CAPIBARA_SERVICES, key, {**stored, "spec": spec})
    world.stores.services.upsert(changed)
    await world.reconcile()
    assert "endpointSummary" not in world.kube.objects["CapibaraService", key]["status"]
