"""Who has to look again when a service changes."""

from collections.abc import Hashable

from capibara_operator.core.services.dependencies import names_of
from capibara_operator.core.services.model import parse_status
from capibara_operator.ports.kube import Key, Manifest


class Dependents:
    """Remembers which services depend on which, and what they were last told."""

    def __init__(self) -> None:
        self._named: dict[Key, frozenset[Key]] = {}
        self._dependents: dict[Key, set[Key]] = {}
        self._told: dict[Key, Hashable] = {}

    def concerned(self, key: Key, obj: Manifest | None) -> frozenset[Key]:
        """The services that depend on this one, if it has news for them; ``obj`` None: gone."""
        self._relink(key, obj)
        news = None if obj is None else _news(obj)
        if self._told.get(key) == news:
            return frozenset()
        if news is None:
            self._told.pop(key, None)
        else:
            self._told[key] = news
        return frozenset(self._dependents.get(key, ()))

    def _relink(self, key: Key, obj: Manifest | None) -> None:
        named = frozenset(Key(key.namespace, name) for name in names_of(obj))
        before = self._named.pop(key, frozenset())
        for gone in before - named:
            self._dependents[gone].discard(key)
            if not self._dependents[gone]:
                del self._dependents[gone]
        for new in named - before:
            self._dependents.setdefault(new, set()).add(key)
        if named:
            self._named[key] = named


def _news(obj: Manifest) -> Hashable:
    """All of a service that decides about the start of others."""
    status = parse_status(obj)
    return (
        obj["metadata"].get("uid"),
        obj["metadata"].get("generation"),
        names_of(obj),
        status.observed_generation,
        bool(status.replicas),
        tuple((each.type, each.status) for each in status.conditions),
    )
