"""Calls to an E2B-compatible provider through the genuine ``e2b`` SDK."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from capibara_operator.adapters.e2b_errors import to_sandbox_error
from capibara_operator.adapters.e2b_sdk import (
    E2B,
    Answer,
    AsyncSandbox,
    WriteEntry,
    e2b,
    last_answer,
)
from capibara_operator.adapters.e2b_stream import stream
from capibara_operator.metrics import PROVIDER_REQUEST_SECONDS, PROVIDER_REQUESTS
from capibara_operator.ports.sandboxes import (
    CommandExitError,
    CreateRequest,
    Endpoint,
    Fault,
    File,
    SandboxError,
    SandboxInfo,
)

_OPERATIONS: Final[Mapping[str, tuple[str, float]]] = {
    "create": ("create a sandbox", 60.0),
    "get": ("describe a sandbox", 15.0),
    "list": ("list sandboxes", 30.0),
    "kill": ("kill a sandbox", 30.0),
    "resume": ("resume a sandbox", 60.0),
    "attach": ("attach to a sandbox", 30.0),
    "upload": ("take files", 60.0),
    "read": ("return a file", 60.0),
    "start": ("start a command", 30.0),
    "follow": ("stream a command's output", 0.0),
    "ping": ("answer", 10.0),
}
"""What the provider is asked to do, in words, and the deadline in seconds."""

PAGE_SIZE: Final = 100
MAX_PAGES: Final = 1_000
MAX_HANDLES: Final = 4_096
ATTACH_SECONDS: Final = 60
"""Least lifetime that attaching asks for; a running sandbox's is only ever extended."""

_T = TypeVar("_T")


class E2BSandboxes:
    """One provider, as a ``ports.sandboxes.SandboxAPI``. ``provider`` labels the metrics."""

    def __init__(self, endpoint: Endpoint, *, provider: str) -> None:
        self._provider = provider
        self._api_key = endpoint.api_key
        self._sdk: type[AsyncSandbox] = E2B(
            api_key=endpoint.api_key,
            api_url=endpoint.api_url,
            sandbox_url=endpoint.sandbox_url,
            domain=endpoint.domain,
            debug=False,
            retries=0,
        ).AsyncSandbox
        self._handles: OrderedDict[str, AsyncSandbox] = OrderedDict()
        self._pauses = True
        self._reapers: set[asyncio.Task[None]] = set()

    async def create(self, request: CreateRequest) -> SandboxInfo:
        """Create a sandbox and return it as soon as it is running.

        Its size and times are not in the provider's answer; ``get`` has them.
        """
        call = asyncio.ensure_future(self._create(request))
        try:
            sandbox = await asyncio.shield(call)
        except asyncio.CancelledError:
            reaper = asyncio.ensure_future(self._reap(call))
            self._reapers.add(reaper)
            reaper.add_done_callback(self._reapers.discard)
            raise
        self._keep(sandbox)
        return SandboxInfo(
            sandbox.sandbox_id, request.template_id, request.metadata, "running", None, None
        )

    async def get(self, sandbox_id: str) -> SandboxInfo | None:
        """What the provider knows of a sandbox; None when it is gone."""
        try:
            info = await self._call("get", lambda: self._sdk.get_info(sandbox_id))
        except SandboxError as error:
            if error.fault is Fault.NOT_FOUND:
                self._handles.pop(sandbox_id, None)
                return None
            raise
        return _info(info)

    async def list(self, metadata: Mapping[str, str]) -> Sequence[SandboxInfo]:
        """All running and paused sandboxes whose metadata has these pairs, all pages."""
        query = e2b.SandboxQuery(
            metadata=dict(metadata), state=[e2b.SandboxState.RUNNING, e2b.SandboxState.PAUSED]
        )
        pages = self._sdk.list(query=query, limit=PAGE_SIZE)
        found: dict[str, SandboxInfo] = {}
        for _ in range(MAX_PAGES):
            for info in await self._call("list", pages.next_items):
                # Callers kill what is listed: a provider that ignores the filter must not matter.
                if metadata.items() <= (info.metadata or {}).items():
                    found[info.sandbox_id] = _info(info)
            if not pages.has_next:
                break
        return tuple(found.values())

    async def kill(self, sandbox_id: str) -> bool:
        """Destroy a sandbox; False when it was gone already."""
        killed = await self._call("kill", lambda: self._sdk.kill(sandbox_id))
        self._handles.pop(sandbox_id, None)
        return killed

    async def resume(self, sandbox_id: str, *, lifetime_seconds: int) -> None:
        """Connect to a running or paused sandbox and give it at least this long to live."""
        self._keep(
            await self._call(
                "resume", lambda: self._sdk.connect(sandbox_id, timeout=lifetime_seconds)
            )
        )

    async def upload(self, sandbox_id: str, files: Sequence[File]) -> None:
        """Write files in one request; parents are created."""
        sandbox = await self._handle(sandbox_id)
        entries = [WriteEntry(path=file.path, data=file.data) for file in files]
        await self._call("upload", lambda: sandbox.files.write_files(entries))

    async def read(self, sandbox_id: str, path: str, *, limit_bytes: int) -> bytes | None:
        """Read one file, at most ``limit_bytes`` + 1 of it; None when there is none."""
        sandbox = await self._handle(sandbox_id)
        return await self._call("read", lambda: _read(sandbox, path, limit_bytes))

    async def follow(self, sandbox_id: str, command: str) -> AsyncGenerator[str, None]:
        """Run a shell command in the background and yield its stdout in pieces as it comes."""
        sandbox = await self._handle(sandbox_id)
        pieces = await self._call("start", lambda: stream(sandbox, command))
        try:
            async for piece in pieces:
                yield piece
        except CommandExitError as error:
            if error.exit_code >= 0:
                raise
            raise await self._killed(sandbox_id) from error
        except Exception as error:
            raise self._error(error, "follow", Answer()) from error
        finally:
            await pieces.aclose()

    async def ping(self) -> None:
        """A list of one: is the provider there, is the key good."""
        await self._call("ping", self._sdk.list(limit=1).next_items)

    async def aclose(self) -> None:
        """Wait until the sandboxes of cancelled calls are killed."""
        if self._reapers:
            await asyncio.wait(self._reapers)

    async def _create(self, request: CreateRequest) -> AsyncSandbox:
        pausing = request.pause_on_timeout and self._pauses
        try:
            return await self._create_once(request, pause=pausing)
        except SandboxError as error:
            if not pausing or error.status not in {400, 501}:
                raise
            # Pausing is not everywhere: a provider that refuses it is asked again without.
            sandbox = await self._create_once(request, pause=False)
            self._pauses = False
            return sandbox

    async def _create_once(self, request: CreateRequest, *, pause: bool) -> AsyncSandbox:
        lifecycle = e2b.SandboxLifecycle(on_timeout="pause", auto_resume=False) if pause else None
        return await self._call(
            "create",
            lambda: self._sdk.create(
                template=request.template_id,
                timeout=request.lifetime_seconds,
                metadata=dict(request.metadata),
                secure=True,
                allow_internet_access=request.internet,
                lifecycle=lifecycle,
                idempotency_key=request.idempotency_key,
            ),
        )

    async def _reap(self, call: asyncio.Future[AsyncSandbox]) -> None:
        with suppress(SandboxError):
            await self.kill((await call).sandbox_id)

    async def _handle(self, sandbox_id: str) -> AsyncSandbox:
        """The SDK's object for a sandbox, which holds its access token."""
        if (sandbox := self._handles.get(sandbox_id)) is not None:
            return sandbox
        sandbox = await self._call(
            "attach", lambda: self._sdk.connect(sandbox_id, timeout=ATTACH_SECONDS)
        )
        self._keep(sandbox)
        return sandbox

    def _keep(self, sandbox: AsyncSandbox) -> None:
        self._handles[sandbox.sandbox_id] = sandbox
        while len(self._handles) > MAX_HANDLES:
            self._handles.popitem(last=False)

    async def _call(self, operation: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """One call with its deadline, its metrics, and its errors translated."""
        answer, began, code = Answer(), time.monotonic(), "ok"
        last_answer.set(answer)
        try:
            async with asyncio.timeout(_OPERATIONS[operation][1]):
                return await call()
        except asyncio.CancelledError:
            code = "Cancelled"
            raise
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # connectrpc turns a cancellation into an error of its own.
                code = "Cancelled"
                raise asyncio.CancelledError from error
            failure = self._error(error, operation, answer)
            code = failure.fault.value
            raise failure from error
        finally:
            last_answer.set(None)
            PROVIDER_REQUESTS.labels(self._provider, operation, code).inc()
            PROVIDER_REQUEST_SECONDS.labels(self._provider, operation).observe(
                time.monotonic() - began
            )

    async def _killed(self, sandbox_id: str) -> SandboxError:
        """What a followed command's death by a signal means: not the command's own ending."""
        if await self.get(sandbox_id) is None:
            text = "The sandbox ended while its command was followed."
            return SandboxError(Fault.NOT_FOUND, text, 404)
        text = "The followed command was killed inside the sandbox. It is followed anew."
        return SandboxError(Fault.UNREACHABLE, text)

    def _error(self, error: Exception, operation: str, answer: Answer) -> SandboxError:
        what, _ = _OPERATIONS[operation]
        return to_sandbox_error(error, what, answer, (self._api_key,))


async def _read(sandbox: AsyncSandbox, path: str, limit_bytes: int) -> bytes | None:
    try:
        reader = await sandbox.files.read(path, format="stream")
    except e2b.FileNotFoundException:
        return None
    content = bytearray()
    async with reader:
        async for chunk in reader:
            content += chunk
            if len(content) > limit_bytes:
                break
    return bytes(content[: limit_bytes + 1])


def _info(info: e2b.SandboxInfo) -> SandboxInfo:
    return SandboxInfo(
        sandbox_id=info.sandbox_id,
        template_id=info.template_id,
        metadata=info.metadata,
        state=str(info.state.value),
        started_at=info.started_at,
        end_at=info.end_at,
        cpu_count=info.cpu_count,
        memory_mib=info.memory_mb,
    )
