"""What the API server last told us about the objects of one kind."""

import asyncio
from collections.abc import Iterator

from capibara_operator.ports.kube import Key, Manifest, Resource


def key_of(obj: Manifest) -> Key:
    """The key of a full object or of a PartialObjectMetadata."""
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


class Store:
    """The last seen objects of one kind, by key.

    Objects are shared, not copied: treat them as immutable. ``synced`` is set once the objects
    that existed at the start are all here.
    """

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._objects: dict[Key, Manifest] = {}

    def get(self, key: Key) -> Manifest | None:
        """The last seen state of an object; None when it is gone or was never seen."""
        return self._objects.get(key)

    def values(self) -> Iterator[Manifest]:
        """All objects, as of the call."""
        return iter(list(self._objects.values()))

    def keys(self) -> Iterator[Key]:
        """All keys, as of the call."""
        return iter(list(self._objects))

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: Key) -> bool:
        return key in self._objects

    def upsert(self, obj: Manifest) -> bool:
        """Take in a state of an object; False when it is no news.

        A controller may put the answer to its own write here: the watch's echo of it is then no
        news, and a late echo of an earlier state does not undo it.
        """
        key = key_of(obj)
        known = self._objects.get(key)
        if known is not None and not _is_news(known, obj):
            return False
        obj["metadata"].pop("managedFields", None)
        self._objects[key] = obj
        return True

    def remove(self, key: Key, *, uid: str = "") -> bool:
        """Forget an object; with ``uid`` only that one, not a successor of the same name."""
        known = self._objects.get(key)
        if known is None or (uid and known["metadata"].get("uid") not in {uid, None}):
            return False
        del self._objects[key]
        return True


def _is_news(known: Manifest, obj: Manifest) -> bool:
    before, after = known["metadata"], obj["metadata"]
    if before.get("uid") != after.get("uid"):
        return True
    old, new = before.get("resourceVersion", ""), after.get("resourceVersion", "")
    # Resource versions of one resource are ordered numbers (API concepts, "comparable").
    if old.isdecimal() and new.isdecimal():
        return int(new) > int(old)
    return bool(not new or old != new)
