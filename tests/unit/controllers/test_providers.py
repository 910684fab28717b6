"""Providers are tested, reported on, and written to only when something changed."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from capibara_operator.api.provider import SandboxProviderStatus
from capibara_operator.controllers.connections import Connections
from capibara_operator.controllers.providers import ProviderReconciler
from capibara_operator.core.conditions import find_condition, kstatus_violations
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.resources import SANDBOX_PROVIDERS, SECRETS
from capibara_operator.ports.sandboxes import Endpoint, Fault, SandboxError
from capibara_operator.runtime.store import Store

KEY = Key("", "sandboxd")
API_KEY = "e2b_0123456789"


@dataclass
class FakeKube:
    """Secrets to read and the status patches that came."""

    secrets: dict[Key, dict[str, Any]] = field(default_factory=dict)
    patches: list[dict[str, Any]] = field(default_factory=list)
    error: KubeError | None = None

    async def get(self, resource: Any, key: Key) -> dict[str, Any] | None:
        assert resource is SECRETS
        if self.error:
            raise self.error
        return self.secrets.get(key)

    async def patch(self, resource: Any, key: Key, body: Any, *, subresource: str) -> None:
        assert (resource, key, subresource) == (SANDBOX_PROVIDERS, KEY, "status")
        json.dumps(body)
        self.patches.append(body["status"])


@dataclass
class FakeSandboxes:
    endpoint: Endpoint
    answers: list[SandboxError | None]
    pings: int = 0

    async def ping(self) -> None:
        self.pings += 1
        answer = self.answers[0]
        if answer is not None:
            raise answer


@dataclass
class World:
    """A provider reconciler, with the API server and the provider as fakes."""

    kube: FakeKube = field(default_factory=FakeKube)
    answers: list[SandboxError | None] = field(default_factory=lambda: [None])
    store: Store = field(default_factory=lambda: Store(SANDBOX_PROVIDERS))
    opened: list[FakeSandboxes] = field(default_factory=list)
    events: list[tuple[bool, str, str]] = field(default_factory=list)
    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    version: int = 0

    def __post_init__(self) -> None:
        self.connections = Connections(
            kube=self.kube,  # type: ignore[arg-type]
            providers=self.store,
            connect=self.connect,  # type: ignore[arg-type]
            operator_namespace="capibara-system",
        )
        self.reconciler = ProviderReconciler(
            providers=self.store,
            connections=self.connections,
            kube=self.kube,  # type: ignore[arg-type]
            recorder=self,
            clock=self,
        )

    def connect(self, name: str, endpoint: Endpoint) -> FakeSandboxes:
        assert name == KEY.name
        self.opened.append(FakeSandboxes(endpoint, self.answers))
        return self.opened[-1]

    def event(self, obj: Any, *, warning: bool, reason: str, message: str) -> None:
        self.events.append((warning, reason, message))

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def put(self, *, generation: int = 1, status: Any = None, **spec: Any) -> None:
        self.version += 1
        self.store.upsert(
            {
                "metadata": {
                    "name": KEY.name,
                    "uid": "u",
                    "generation": generation,
                    "resourceVersion": str(self.version),
                },
                "spec": {"apiURL": "http://s:1", "credentialsSecretRef": {"name": "e2b"}} | spec,
                "status": status or {"observedGeneration": -1},
            }
        )

    def put_secret(self, value: str = API_KEY, key: str = "apiKey") -> None:
        encoded = base64.b64encode(value.encode()).decode()
        self.kube.secrets[Key("capibara-system", "e2b")] = {"data": {key: encoded}}

    async def reconcile(self) -> float | None:
        """One pass; what it wrote is then in the store, as the watch would bring it."""
        before = len(self.kube.patches)
        result = await self.reconciler.reconcile(KEY)
        obj = self.store.get(KEY)
        if obj and len(self.kube.patches) > before:
            status = obj["status"] | self.kube.patches[-1]
            self.put(generation=obj["metadata"]["generation"], status=status)
        return result.requeue_after

    @property
    def ready(self) -> tuple[str, str, str]:
        obj = self.store.get(KEY)
        assert obj is not None
        status = SandboxProviderStatus.model_validate(obj["status"])
        generation = obj["metadata"]["generation"]
        observed = status.observed_generation
        assert not kstatus_violations(
            status.conditions, generation=generation, observed_generation=observed
        )
        found = find_condition(status.conditions, "Ready")
        assert found is not None
        return found.status, found.reason, found.message


async def test_a_provider_that_answers_is_ready_and_then_left_alone() -> None:
    world = World()
    world.put()
    world.put_secret()
    assert await world.reconcile() == 60
    assert world.ready == ("True", "Connected", "http://s:1 answers and takes the API key.")
    assert world.opened[0].endpoint.api_key == API_KEY
    for _ in range(3):
        await world.reconcile()
    assert len(world.kube.patches) == 1
    assert len(world.opened) == 1
    assert world.opened[0].pings == 4
    assert [event[:2] for event in world.events] == [(False, "Connected")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SandboxError(Fault.UNAUTHENTICATED, "The key is wrong.", 401), "AuthenticationFailed"),
        (SandboxError(Fault.UNREACHABLE, "Connection refused."), "ProviderUnreachable"),
        (SandboxError(Fault.NOT_FOUND, "No such path.", 404), "ProviderUnreachable"),
        (SandboxError(Fault.INVALID, "Bad request.", 400), "ProviderUnreachable"),
    ],
)
async def test_a_provider_that_fails_is_stalled_and_recovers(
    error: SandboxError, reason: str
) -> None:
    world = World(answers=[error])
    world.put()
    world.put_secret()
    assert await world.reconcile() == 10
    assert world.ready == ("False", reason, error.message)
    await world.reconcile()
    assert len(world.kube.patches) == 1
    world.answers[0] = None
    await world.reconcile()
    assert world.ready[:2] == ("True", "Connected")
    assert [event[:2] for event in world.events] == [(True, reason), (False, "Connected")]


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.CAPACITY])
async def test_a_busy_provider_is_ready(fault: Fault) -> None:
    world = World(answers=[SandboxError(fault, "Too many.", 429)])
    world.put()
    world.put_secret()
    await world.reconcile()
    assert world.ready[:2] == ("True", "Connected")


def test_a_provider_that_never_answers_is_unreachable(run_virtual: Any) -> None:
    class Silent(FakeSandboxes):
        async def ping(self) -> None:
            await asyncio.sleep(3600)

    world = World()
    world.put()
    world.put_secret()
    world.connections._connect = lambda _, endpoint: Silent(endpoint, [])  # type: ignore[assignment, return-value]
    run_virtual(world.reconcile())
    assert world.ready[:2] == ("False", "ProviderUnreachable")
    assert "No answer within 10 s" in world.ready[2]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (None, "", "does not exist; create it"),
        ("other", API_KEY, "has no key 'apiKey'"),
        ("apiKey", "", "or an empty one"),
        ("apiKey", "a\x00b", "or an empty one"),
        ("apiKey", "clé", "or an empty one"),
    ],
)
async def test_missing_credentials_say_what_to_do(key: str | None, value: str, said: str) -> None:
    world = World()
    world.put()
    if key:
        world.put_secret(value, key)
    await world.reconcile()
    status, reason, message = world.ready
    assert (status, reason) == ("False", "AuthenticationFailed")
    assert said in message
    assert "kubectl create secret generic e2b --namespace capibara-system" in message
    assert not value or value not in message
    assert not world.opened


async def test_a_new_key_and_a_new_url_make_a_new_client() -> None:
    world = World()
    world.put()
    world.put_secret()
    first = await world.connections(KEY.name)
    assert await world.connections(KEY.name) is first
    world.put_secret("another")
    await world.reconcile()
    second = await world.connections(KEY.name)
    assert second is not first
    world.put(generation=2, apiURL="http://t:2")
    third = await world.connections(KEY.name)
    assert third is not second
    assert [opened.endpoint.api_key for opened in world.opened] == [API_KEY, "another", "another"]
    assert world.opened[-1].endpoint.api_url == "http://t:2"


async def test_the_status_follows_the_generation() -> None:
    world = World()
    world.put()
    world.put_secret()
    await world.reconcile()
    obj = world.store.get(KEY)
    assert obj is not None
    world.put(generation=2, status=obj["status"])
    await world.reconcile()
    assert world.kube.patches[-1]["observedGeneration"] == 2
    assert world.kube.patches[-1]["conditions"][0]["observedGeneration"] == 2


async def test_what_the_sweep_counted_is_not_overwritten() -> None:
    world = World()
    world.put(status={"observedGeneration": -1, "reaped": 3})
    world.put_secret()
    await world.reconcile()
    assert set(world.kube.patches[0]) == {"observedGeneration", "conditions"}


async def test_an_api_server_that_fails_is_not_the_providers_fault() -> None:
    world = World(kube=FakeKube(error=KubeError(500, "InternalError", "etcd")))
    world.put()
    with pytest.raises(KubeError):
        await world.reconciler.reconcile(KEY)
    assert not world.kube.patches


async def test_credentials_that_may_not_be_read_are_told() -> None:
    error = KubeError(403, "Forbidden", 'secrets "e2b" is forbidden')
    world = World(kube=FakeKube(error=error))
    world.put()
    await world.reconcile()
    status, reason, message = world.ready
    assert (status, reason) == ("False", "AuthenticationFailed")
    assert "may not read Secret e2b in namespace capibara-system" in message


async def test_a_spec_of_another_version_is_refused_in_words() -> None:
    world = World()
    world.put(regions=["eu"])
    await world.reconcile()
    status, reason, message = world.ready
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec" in message


async def test_a_provider_that_is_gone_is_forgotten() -> None:
    world = World()
    world.put()
    world.put_secret()
    await world.reconcile()
    world.store.remove(KEY)
    assert await world.reconcile() is None
    with pytest.raises(SandboxError, match="does not exist") as caught:
        await world.connections(KEY.name)
    assert caught.value.fault is Fault.NOT_FOUND
