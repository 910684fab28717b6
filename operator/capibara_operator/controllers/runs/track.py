"""What this process knows of a run that is open; nothing in it is needed after a restart."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from capibara_operator.core.runs.inputs import Inputs
from capibara_operator.core.runs.seen import (
    ChosenProvider,
    ChosenTemplate,
    Following,
    Refused,
    Sandbox,
    Seen,
    Slot,
    Stages,
    Started,
    Trouble,
)
from capibara_operator.core.runs.transcript import Transcript
from capibara_operator.ports.kube import Key


@dataclass(slots=True)
class Track:
    """One open run. The fields have the meaning that they have in ``Seen``."""

    key: Key
    uid: str
    since: datetime
    sandboxes: tuple[Sandbox, ...] | None = None
    inputs: Inputs | Refused | None = field(default=None, repr=False)
    slot: Slot | None = None
    slot_provider: str = ""
    queued_since: datetime | None = None
    started: Started = Started.UNKNOWN
    inspected: Sandbox | None = None
    gone: bool = False
    killed: frozenset[str] = frozenset()
    following: Following | None = None
    stream: asyncio.Task[None] | None = None
    transcript: Transcript = field(default_factory=Transcript)
    exit_at: datetime | None = None
    output: str | None = None
    output_problem: str = ""
    stages: Stages = field(default_factory=Stages)
    trouble: Trouble | None = None
    conflict_since: datetime | None = None
    creations: int = 0
    released: bool = False

    def begin_visit(self) -> None:
        """Forget what must be looked at anew on every visit."""
        if isinstance(self.inputs, Refused):
            self.inputs = None
        if self.slot is not None and not self.slot.granted:
            self.slot = None
        if self.conflict_since is not None and not self.sandboxes:
            self.sandboxes = None

    def begin_attempt(self) -> None:
        """Forget the attempt that ended; its sandboxes are looked up anew."""
        self.sandboxes = None
        self.started = Started.UNKNOWN
        self.inspected = None
        self.gone = False
        self.following = None
        self.transcript = Transcript()
        self.exit_at = None
        self.creations = 0
        self.conflict_since = None

    def seen(
        self,
        *,
        template: ChosenTemplate | Refused,
        provider: ChosenProvider | Refused,
        operator: str,
        cluster: str,
    ) -> Seen:
        """What the planner may know: no values of Secrets."""
        return Seen(
            since=self.since,
            template=template,
            provider=provider,
            sandboxes=self.sandboxes,
            inputs=True if isinstance(self.inputs, Inputs) else self.inputs,
            slot=self.slot,
            started=self.started,
            inspected=self.inspected,
            gone=self.gone,
            killed=self.killed,
            following=self.following,
            transcript=self.transcript,
            exit_at=self.exit_at,
            output=self.output,
            output_problem=self.output_problem,
            stages=self.stages,
            trouble=self.trouble,
            conflict_since=self.conflict_since,
            creations=self.creations,
            operator=operator,
            cluster=cluster,
        )
