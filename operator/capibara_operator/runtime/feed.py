"""Keeps a store equal to the API server: the first list, watch events, and periodic comparison.

A watch that had to be opened anew tells nothing of objects that were deleted meanwhile, so the
comparison is what makes the store right in the end.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final

from capibara_operator import metrics
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Manifest, Resource
from capibara_operator.runtime.store import Store, key_of

_logger = logging.getLogger(__name__)

_FIRST_LIST_BACKOFFS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
_WATCH_GRACE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Feed:
    """What is done with the events of one resource.

    ``enqueue`` puts the keys that an object concerns into their work queues; ``selector`` is the
    label selector of list and watch; ``problem`` says why the first list is not here yet.
    """

    resource: Resource
    enqueue: Callable[[Manifest], None]
    selector: str = ""
    namespaces: Sequence[str] = ()
    store: Store = field(init=False)
    problem: str = "not listed yet"

    def __post_init__(self) -> None:
        """Make the store."""
        self.store = Store(self.resource)
        metrics.OBJECTS.labels(self.resource.plural).set_function(lambda: len(self.store))

    def saw(self, event_type: str | None, obj: Manifest) -> None:
        """Take in one watch event; the type is None for objects of a list."""
        if event_type == "DELETED":
            news = self.store.remove(key_of(obj), uid=obj["metadata"].get("uid", ""))
        else:
            news = self.store.upsert(obj)
        if news:
            metrics.WATCH_EVENTS.labels(self.resource.plural, event_type or "LISTED").inc()
            self.enqueue(obj)

    async def fill(self, kube: KubeAPI) -> None:
        """Take in all objects that exist; tries until it succeeds."""
        for backoff in chain(_FIRST_LIST_BACKOFFS, repeat(_FIRST_LIST_BACKOFFS[-1])):
            try:
                for obj in await self._list(kube):
                    self.saw(None, obj)
            except KubeError as error:
                self._explain(error)
                await asyncio.sleep(backoff)
            else:
                self.problem = ""
                self.store.synced.set()
                return

    async def compare(self, kube: KubeAPI) -> int:
        """Compare the store with a metadata-only list; returns the number of changes found."""
        before = {key_of(obj): _version(obj) for obj in self.store.values()}
        listed = {key_of(obj): _version(obj) for obj in await self._list(kube, metadata_only=True)}
        found = self._drop_deleted(before, listed)
        behind = [key for key in listed if self._is_behind(key, listed[key])]
        if behind:
            # The watch is usually just a moment late.
            await asyncio.sleep(_WATCH_GRACE_SECONDS)
            for key in behind:
                if self._is_behind(key, listed[key]):
                    found += await self._fetch(kube, key)
        if found:
            metrics.WATCH_SWEPT.labels(self.resource.plural).inc(found)
            _logger.warning(
                "the watch had missed changes",
                extra={"resource": self.resource.plural, "count": found},
            )
        return found

    def _drop_deleted(
        self, before: Mapping[Key, tuple[str, str]], listed: Mapping[Key, tuple[str, str]]
    ) -> int:
        dropped = 0
        for key, (uid, _) in before.items():
            if key in listed and listed[key][0] == uid:
                continue
            obj = self.store.get(key)
            if obj is not None and self.store.remove(key, uid=uid):
                self.enqueue(obj)
                dropped += 1
        return dropped

    def _is_behind(self, key: Key, listed: tuple[str, str]) -> bool:
        obj = self.store.get(key)
        if obj is None:
            return True
        uid, version = _version(obj)
        return uid != listed[0] or int(version) < int(listed[1])

    async def _fetch(self, kube: KubeAPI, key: Key) -> int:
        news = 0
        for obj in await kube.list(
            self.resource,
            namespace=key.namespace,
            label_selector=self.selector,
            field_selector=f"metadata.name={key.name}",
        ):
            if self.store.upsert(obj):
                self.enqueue(obj)
                news += 1
        return news

    async def _list(self, kube: KubeAPI, *, metadata_only: bool = False) -> list[Manifest]:
        namespaces = self.namespaces if self.resource.namespaced else ()
        return [
            obj
            for namespace in namespaces or ("",)
            for obj in await kube.list(
                self.resource,
                namespace=namespace,
                label_selector=self.selector,
                metadata_only=metadata_only,
            )
        ]

    def _explain(self, error: KubeError) -> None:
        problem = str(error)
        if error.status == 403:
            problem += "; grant it with the ClusterRole of the Helm chart (rbac.create=true)"
        elif error.status == 404:
            problem += f"; install the CRD of {self.resource.plural} (kubectl apply -f crds/)"
        if problem != self.problem:
            _logger.warning(
                "cannot list, will retry",
                extra={"resource": self.resource.plural, "error": problem},
            )
        self.problem = problem


async def compare_all(kube: KubeAPI, feeds: Sequence[Feed], *, seconds: float) -> None:
    """Compare all stores every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        for feed in feeds:
            try:
                await feed.compare(kube)
            except KubeError as error:
                _logger.warning(
                    "cannot compare with the API server, will retry",
                    extra={"resource": feed.resource.plural, "error": str(error)},
                )


def _version(obj: Manifest) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("uid", ""), metadata.get("resourceVersion", "0")
