"""What the operator needs of an E2B-compatible provider, as a Protocol.

Facts about the calls: the E2B API (v2 paths) as the ``e2b`` SDK 2.63 speaks it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Fault(StrEnum):
    """Why a call to a provider failed, as far as it decides what to do next."""

    UNREACHABLE = "Unreachable"  # no answer, connection refused, 5xx: try again
    UNAUTHENTICATED = "Unauthenticated"  # 401, 403: the key is wrong
    THROTTLED = "Throttled"  # 429 by rate: wait retry_after
    CAPACITY = "Capacity"  # 429 by the number of sandboxes: wait for a free one
    NOT_FOUND = "NotFound"  # the sandbox, template or file is not there
    CONFLICT = "Conflict"  # 409 or 422: an idempotency key is in use
    INVALID = "Invalid"  # any other 4xx: the same request never succeeds


@dataclass(slots=True)
class SandboxError(Exception):
    """A call to the provider failed. ``retry_after`` is in seconds; never holds a secret."""

    fault: Fault
    message: str
    status: int = 0
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and the key to it. Empty strings leave the SDK's own default."""

    api_url: str
    sandbox_url: str
    domain: str
    api_key: str

    def __repr__(self) -> str:
        return f"Endpoint(api_url={self.api_url!r}, domain={self.domain!r}, api_key=***)"


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """One sandbox to create. ``lifetime_seconds`` counts from the creation."""

    template_id: str
    metadata: Mapping[str, str]
    idempotency_key: str
    lifetime_seconds: int
    internet: bool = False
    pause_on_timeout: bool = False


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as its provider reports it. ``memory_mib`` and ``cpu_count`` may be 0: unknown."""

    sandbox_id: str
    template_id: str
    metadata: Mapping[str, str]
    state: str  # running | paused
    started_at: datetime | None
    end_at: datetime | None
    cpu_count: int = 0
    memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class File:
    """A file to write into a sandbox: absolute path, or relative to the user's home."""

    path: str
    data: bytes


class SandboxAPI(Protocol):
    """Calls to one provider. Each has a deadline, never retries, and raises ``SandboxError``."""

    async def create(self, request: CreateRequest) -> SandboxInfo:
        """Create a sandbox and return it as soon as it is running.

        When the caller is cancelled while the call is under way, a sandbox that was created
        all the same is killed.
        """
        ...

    async def get(self, sandbox_id: str) -> SandboxInfo | None:
        """What the provider knows of a sandbox; None when it is gone."""
        ...

    async def list(self, metadata: Mapping[str, str]) -> Sequence[SandboxInfo]:
        """All running and paused sandboxes whose metadata has these pairs, all pages."""
        ...

    async def kill(self, sandbox_id: str) -> bool:
        """Destroy a sandbox; False when it was gone already."""
        ...

    async def resume(self, sandbox_id: str, *, lifetime_seconds: int) -> None:
        """Connect to a running or paused sandbox and give it at least this long to live."""
        ...

    async def upload(self, sandbox_id: str, files: Sequence[File]) -> None:
        """Write files in one request; parents are created."""
        ...

    async def read(self, sandbox_id: str, path: str, *, limit_bytes: int) -> bytes | None:
        """Read one file, at most ``limit_bytes`` + 1 of it; None when there is none."""
        ...

    def follow(self, sandbox_id: str, command: str) -> AsyncIterator[str]:
        """Run a shell command in the background and yield its stdout in pieces as it comes.

        Ends when the command exits with 0; any other exit raises ``CommandExitError``. A lost
        connection raises ``SandboxError`` (UNREACHABLE, or NOT_FOUND when the sandbox is gone).
        Closing the iterator disconnects and leaves the command running.
        """
        ...

    async def ping(self) -> None:
        """A list of one, the cheapest call: is the provider there, is the key good."""
        ...

    async def aclose(self) -> None:
        """Wait until the sandboxes of cancelled creates are killed."""
        ...


@dataclass(slots=True)
class CommandExitError(Exception):
    """A followed command exited with a code other than 0; ``stderr`` is its tail."""

    exit_code: int
    stderr: str = ""
