"""Which sandboxes nobody owns any more, and which runs have outlived their time."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from capibara_operator.api.common import EXPIRES_AT_LABEL, SandboxMetadata
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import Sandbox

_LEAST_CAP: Final = 10
_CAP_PERCENT: Final = 10


@dataclass(frozen=True, slots=True)
class Owned:
    """A sandbox at a provider, and the run that its metadata names."""

    sandbox: Sandbox
    namespace: str
    name: str
    uid: str


def owned(sandbox: Sandbox, metadata: Mapping[str, str]) -> Owned | None:
    """The sandbox with its run; None where the metadata does not prove it ours."""
    names = [SandboxMetadata.NAMESPACE, SandboxMetadata.NAME, SandboxMetadata.UID]
    namespace, name, uid = (metadata.get(key, "") for key in names)
    if not (namespace and name and uid):
        return None
    return Owned(sandbox, namespace, name, uid)


def old_enough(found: Owned, now: datetime, grace_seconds: float) -> bool:
    """Whether the sandbox is so old that its run must have claimed it."""
    since = found.sandbox.started_at
    return since is not None and since + timedelta(seconds=grace_seconds) <= now


def is_orphan(found: Owned, run: Run | None) -> bool:
    """Whether nobody owns the sandbox, by the state of the run that it names."""
    if run is None or run.uid != found.uid or run.closed:
        return True
    if run.finished:
        return not run.held
    claimed = run.status.sandbox_id
    return claimed is not None and claimed != found.sandbox.sandbox_id


def condemned(
    orphans: Iterable[Owned], suspects: Collection[str], total: int
) -> tuple[tuple[str, ...], bool]:
    """Of the orphans those that a pass may kill, and whether the cap spared some.

    Only what was an orphan in the pass before too (``suspects``), and at most 10 or 10 % of the
    ``total`` of sandboxes: a cluster that was cloned shares its uids with the original.
    """
    twice = [each.sandbox.sandbox_id for each in orphans if each.sandbox.sandbox_id in suspects]
    cap = max(_LEAST_CAP, total * _CAP_PERCENT // 100)
    return tuple(twice[:cap]), len(twice) > cap


def is_expired(metadata: Mapping[str, Any], now: datetime) -> bool:
    """Whether a closed run's time to live is over, by its label (Unix seconds)."""
    text = (metadata.get("labels") or {}).get(EXPIRES_AT_LABEL, "")
    return text.isdecimal() and int(text) <= now.timestamp()
