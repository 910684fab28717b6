"""Gathers what the planning of a service needs to see."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from capibara_operator.api.common import SERVICE_LABEL
from capibara_operator.core.services.dependencies import find_cycle, names_of, unmet_of
from capibara_operator.core.services.model import Applied, Dependencies, Pod, Seen, Service
from capibara_operator.core.services.ownership import is_owned
from capibara_operator.core.services.pods import controller_of, parse_pod, probe_targets
from capibara_operator.core.services.probing import checks
from capibara_operator.ports.kube import Key, KubeAPI, Manifest
from capibara_operator.ports.probes import EndpointProber
from capibara_operator.ports.resources import REPLICA_SETS
from capibara_operator.runtime.store import Store, key_of


@dataclass(frozen=True, slots=True)
class Stores:
    """What is watched for the sake of services."""

    services: Store
    deployments: Store
    fronts: Store
    """The Services in front of the pods."""
    pods: Store


def service_key(child: Manifest) -> Key | None:
    """The key of the CapibaraService that a child or a pod belongs to by its label."""
    metadata = child["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_LABEL)
    return Key(metadata["namespace"], name) if name else None


class Observer:
    """Looks at the stores, and at the prober, which it tells what there is to probe."""

    def __init__(self, stores: Stores, kube: KubeAPI, prober: EndpointProber) -> None:
        self._stores = stores
        self._kube = kube
        self._prober = prober
        self._pod_keys: dict[Key, set[Key]] = {}
        self._owners: dict[Key, dict[str, str]] = {}

    def saw_pod(self, pod: Manifest) -> None:
        """Note whose pod it is, so that nobody has to search all pods."""
        key = service_key(pod)
        if key is not None:
            self._pod_keys.setdefault(key, set()).add(key_of(pod))

    def forget(self, key: Key) -> None:
        """The service is gone: probe it no more."""
        self._prober.forget(key)
        self._owners.pop(key, None)
        if not list(self._pods_of(key)):
            self._pod_keys.pop(key, None)

    async def observe(self, service: Service, applied: Mapping[str, Applied]) -> Seen:
        """What is there now."""
        key = Key(service.namespace, service.name)
        deployment = self._owned(self._stores.deployments, key, service)
        pods = await self._own_pods(key, deployment)
        current = service.status.observed_generation == service.generation
        known = {each.name: each for each in service.status.endpoints} if current else {}
        self._prober.watch(key, checks=checks(service.spec), ips=probe_targets(pods), known=known)
        return Seen(
            deployment=deployment,
            service=self._owned(self._stores.fronts, key, service),
            pods=pods,
            dependencies=self._dependencies(service),
            endpoints=self._prober.results(key),
            applied=applied,
        )

    @staticmethod
    def _owned(store: Store, key: Key, service: Service) -> Manifest | None:
        obj = store.get(key)
        return obj if obj is not None and is_owned(obj, service) else None

    def _dependencies(self, service: Service) -> Dependencies:
        def look(name: str) -> Manifest | None:
            return self._stores.services.get(Key(service.namespace, name))

        objects = {each.name: look(each.name) for each in service.spec.depends_on}
        return Dependencies(
            unmet=unmet_of(service.spec.depends_on, objects),
            cycle=find_cycle(service.name, lambda name: names_of(look(name))),
        )

    async def _own_pods(self, key: Key, deployment: Manifest | None) -> tuple[Pod, ...]:
        """The pods of the Deployment's own ReplicaSets: a label alone proves nothing."""
        if deployment is None:
            return ()
        uid = deployment["metadata"]["uid"]
        found = [
            parse_pod(pod)
            for pod in self._pods_of(key)
            if await self._deployment_of(key, pod) == uid
        ]
        return tuple(sorted(found, key=lambda pod: pod.name))

    def _pods_of(self, key: Key) -> Iterator[Manifest]:
        for pod_key in list(self._pod_keys.get(key, ())):
            pod = self._stores.pods.get(pod_key)
            if pod is None or service_key(pod) != key:
                self._pod_keys[key].discard(pod_key)
            else:
                yield pod

    async def _deployment_of(self, key: Key, pod: Manifest) -> str:
        """The uid of the Deployment whose ReplicaSet controls a pod; empty for none."""
        name, uid = controller_of(pod, "ReplicaSet")
        if not uid:
            return ""
        known = self._owners.setdefault(key, {})
        if uid not in known:
            replica_set = await self._kube.get(REPLICA_SETS, Key(key.namespace, name))
            if replica_set is None or replica_set["metadata"]["uid"] != uid:
                return ""
            known[uid] = controller_of(replica_set, "Deployment")[1]
        return known[uid]
