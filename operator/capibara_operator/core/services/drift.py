"""Whether a child has to be applied again."""

from collections.abc import Mapping, Sequence
from typing import Any

from capibara_operator.core.services.children import HASH_ANNOTATION
from capibara_operator.core.services.model import Applied, Object


def needs_apply(desired: Object, observed: Object | None, applied: Applied | None) -> bool:
    """Whether ``observed`` lacks anything of ``desired``.

    ``applied`` is our last apply: while the version is still the one of its answer nobody changed
    the spec, however differently the API server writes it (1000m as 1).
    """
    if observed is None:
        return True
    wanted, metadata = desired["metadata"], observed["metadata"]
    owned = {name: wanted[name] for name in ("labels", "annotations", "ownerReferences")}
    if not covers(metadata, owned):
        return True
    unchanged = Applied.of(observed, wanted["annotations"][HASH_ANNOTATION])
    return applied != unchanged and not covers(observed.get("spec"), desired["spec"])


def covers(observed: Any, desired: Any) -> bool:
    """Whether all that is desired is observed; what else is there belongs to others."""
    if isinstance(desired, Mapping):
        return isinstance(observed, Mapping) and all(
            name in observed and covers(observed[name], value) for name, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return isinstance(observed, Sequence) and _covers_list(observed, desired)
    return bool(observed == desired)


def _covers_list(observed: Sequence[Any], desired: Sequence[Any]) -> bool:
    """Lists of objects are compared by uid or name where all items have one, else by position."""
    for key in ("uid", "name"):
        if desired and all(isinstance(item, Mapping) and key in item for item in desired):
            known = {item.get(key): item for item in observed if isinstance(item, Mapping)}
            return all(covers(known.get(item[key]), item) for item in desired)
    return len(observed) == len(desired) and all(map(covers, observed, desired))
