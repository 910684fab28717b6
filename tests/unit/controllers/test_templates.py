"""Templates are checked, reported on, and written to only when something changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from capibara_operator.controllers.templates import TemplateReconciler
from capibara_operator.core.templates.select import view_template
from capibara_operator.ports.kube import Key
from capibara_operator.ports.resources import SANDBOX_PROVIDERS, SANDBOX_TEMPLATES
from capibara_operator.runtime.store import Store

SHARED, MINE = Key("capibara-system", "a"), Key("mine", "a")


@dataclass
class World:
    """A template reconciler, with the API server as a fake."""

    templates: Store = field(default_factory=lambda: Store(SANDBOX_TEMPLATES))
    providers: Store = field(default_factory=lambda: Store(SANDBOX_PROVIDERS))
    patches: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[bool, str]] = field(default_factory=list)
    version: int = 0

    def __post_init__(self) -> None:
        self.reconciler = TemplateReconciler(
            templates=self.templates,
            providers=self.providers,
            kube=self,  # type: ignore[arg-type]
            recorder=self,
            clock=self,
            operator_namespace="capibara-system",
        )

    async def patch(self, resource: Any, key: Key, body: Any, *, subresource: str) -> None:
        assert (resource, subresource) == (SANDBOX_TEMPLATES, "status")
        self.patches.append(body["status"])
        obj = self.templates.get(key)
        assert obj is not None
        self.put(key, obj["metadata"]["generation"], body["status"], **obj["spec"])

    def event(self, obj: Any, *, warning: bool, reason: str, message: str) -> None:
        self.events.append((warning, reason))

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def put(self, key: Key, generation: int = 1, status: Any = None, **spec: Any) -> None:
        self.version += 1
        metadata = {"namespace": key.namespace, "name": key.name, "generation": generation}
        self.templates.upsert(
            {
                "metadata": metadata | {"resourceVersion": str(self.version)},
                "spec": {"templateID": "base"} | spec,
                "status": status or {"observedGeneration": -1},
            }
        )

    def allow(self, *template_ids: str) -> None:
        self.version += 1
        spec = {"credentialsSecretRef": {"name": "x"}, "allowedTemplateIDs": list(template_ids)}
        metadata = {"name": "p", "generation": 1, "resourceVersion": str(self.version)}
        self.providers.upsert({"metadata": metadata, "spec": spec})

    def ready(self, key: Key) -> bool:
        obj = self.templates.get(key)
        assert obj is not None
        view = view_template(obj)
        return view is not None and view.ready


async def test_a_shared_template_is_ready_and_then_left_alone() -> None:
    world = World()
    world.put(SHARED)
    assert (await world.reconciler.reconcile(SHARED)).requeue_after is None
    assert world.ready(SHARED)
    await world.reconciler.reconcile(SHARED)
    assert len(world.patches) == 1
    assert world.patches[0]["templateID"] == "base"
    assert world.patches[0]["observedGeneration"] == 1
    assert not world.events


async def test_another_spec_has_another_hash() -> None:
    world = World()
    world.put(SHARED)
    await world.reconciler.reconcile(SHARED)
    world.put(SHARED, 2, world.patches[0], timeoutSeconds=5)
    assert not world.ready(SHARED)
    await world.reconciler.reconcile(SHARED)
    assert world.ready(SHARED)
    first, second = world.patches
    assert first["specHash"] != second["specHash"]
    times = {patch["conditions"][0]["lastTransitionTime"] for patch in world.patches}
    assert len(times) == 1


async def test_a_template_of_a_user_must_be_allowed_by_a_provider() -> None:
    world = World()
    world.put(MINE)
    assert (await world.reconciler.reconcile(MINE)).requeue_after == 30
    assert not world.ready(MINE)
    conditions = world.patches[0]["conditions"]
    assert [found["type"] for found in conditions] == ["Ready", "Stalled"]
    assert "spec.allowedTemplateIDs" in conditions[0]["message"]
    world.allow("other", "base")
    await world.reconciler.reconcile(MINE)
    assert world.ready(MINE)
    assert world.events == [(True, "TemplateNotAllowed"), (False, "Available")]


async def test_a_spec_of_another_version_is_refused_in_words() -> None:
    world = World()
    world.put(SHARED, warmPool={"replicas": 1})
    await world.reconciler.reconcile(SHARED)
    ready = world.patches[0]["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.warmPool" in ready["message"]
    assert world.patches[0]["templateID"] is None


async def test_a_template_that_is_gone_is_left_alone() -> None:
    world = World()
    assert (await world.reconciler.reconcile(SHARED)).requeue_after is None
    assert not world.patches
