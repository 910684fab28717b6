"""Carries out the actions of a plan for a service."""

from typing import assert_never

from capibara_operator.controllers.services.observe import Stores
from capibara_operator.core.services.children import HASH_ANNOTATION
from capibara_operator.core.services.model import (
    Action,
    Applied,
    ApplyDeployment,
    ApplyService,
    ScaleDeployment,
    Service,
)
from capibara_operator.core.services.ownership import is_leaving, may_take, replicas_to_send
from capibara_operator.ports.kube import Key, KubeAPI, Manifest, Resource
from capibara_operator.ports.resources import DEPLOYMENTS, SERVICES
from capibara_operator.runtime.store import Store


class NameTakenError(Exception):
    """A child's name belongs to an object of somebody else; ``leaving`` if only for now."""

    def __init__(self, kind: str, key: Key, *, leaving: bool) -> None:
        self.leaving = leaving
        todo = "waiting for it to be deleted" if leaving else f"delete it, or rename {key.name}"
        super().__init__(
            f"{kind} {key.namespace}/{key.name} exists and does not belong to this service; {todo}"
        )


class Executor:
    """Writes the children; remembers what it applied, and puts the answers into the stores."""

    def __init__(self, stores: Stores, kube: KubeAPI) -> None:
        self._stores = stores
        self._kube = kube
        self._applied: dict[Key, dict[str, Applied]] = {}

    def applied(self, key: Key) -> dict[str, Applied]:
        """What was applied last for a service, by kind."""
        return self._applied.setdefault(key, {})

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._applied.pop(key, None)

    async def execute(self, service: Service, action: Action) -> None:
        """Carry out one action; raises ``KubeError`` or ``NameTakenError``."""
        match action:
            case ApplyService(manifest=manifest):
                await self._apply(service, SERVICES, self._stores.fronts, manifest)
            case ApplyDeployment(manifest=manifest, replicas=replicas):
                await self._apply(
                    service, DEPLOYMENTS, self._stores.deployments, manifest, replicas=replicas
                )
            case ScaleDeployment(replicas=replicas):
                await self._scale(service, replicas)
            case _ as never:
                assert_never(never)

    async def _apply(
        self,
        service: Service,
        resource: Resource,
        store: Store,
        manifest: Manifest,
        *,
        replicas: int | None = None,
    ) -> None:
        key = Key(service.namespace, service.name)
        present = await self._kube.get(resource, key)
        if present is not None and not may_take(present, service):
            raise NameTakenError(resource.kind, key, leaving=is_leaving(present))
        if replicas is not None:
            manifest = _with_replicas(manifest, replicas_to_send(present, replicas))
        answer = await self._kube.apply(resource, manifest)
        digest = manifest["metadata"]["annotations"][HASH_ANNOTATION]
        self.applied(key)[resource.kind] = Applied.of(answer, digest)
        store.upsert(answer)

    async def _scale(self, service: Service, replicas: int) -> None:
        key = Key(service.namespace, service.name)
        body = {"spec": {"replicas": replicas}}
        await self._kube.patch(DEPLOYMENTS, key, body, subresource="scale")
        # The answer is a Scale; the Deployment's new generation is in the Deployment only.
        scaled = await self._kube.get(DEPLOYMENTS, key)
        if scaled is not None:
            self._stores.deployments.upsert(scaled)


def _with_replicas(manifest: Manifest, replicas: int | None) -> Manifest:
    if replicas is None:
        return manifest
    return manifest | {"spec": manifest["spec"] | {"replicas": replicas}}
