"""An API server and a provider in memory, with faults, for tests of the runs' controller."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from capibara_operator.api.run import SandboxRunStatus
from capibara_operator.core.conditions import kstatus_violations
from capibara_operator.ports.kube import Key, KubeError, Manifest, Resource
from capibara_operator.ports.resources import SANDBOX_RUNS
from capibara_operator.ports.sandboxes import (
    CommandExitError,
    CreateRequest,
    Fault,
    File,
    SandboxError,
    SandboxInfo,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeClock:
    time: datetime = START

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - START).total_seconds()

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@dataclass
class FakeKube:
    """Objects by resource and key, with resource versions, preconditions and finalizers."""

    clock: FakeClock
    objects: dict[tuple[str, Key], Manifest] = field(default_factory=dict)
    version: int = 1
    writes: list[tuple[Key, str]] = field(default_factory=list)
    failing_patches: int = 0
    forbidden: frozenset[str] = frozenset()
    """Plurals that may not be read."""

    def add_run(self, name: str, *, held: bool = False, **spec: Any) -> Key:
        """A new run; ``held`` as by the admission policy that adds the finalizer."""
        self.version += 1
        key = Key("ns", name)
        self.objects[SANDBOX_RUNS.plural, key] = {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "SandboxRun",
            "metadata": {
                "namespace": key.namespace,
                "name": key.name,
                "uid": f"uid-{name}-{self.version}",
                "generation": 1,
                "resourceVersion": str(self.version),
                "creationTimestamp": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "spec": {"code": "1", "language": "python", "cancel": False, **spec},
            "status": {"observedGeneration": -1},
        }
        if held:
            run = self.objects[SANDBOX_RUNS.plural, key]
            run["metadata"]["finalizers"] = ["capibara6.dev/finalizer"]
        return key

    def run(self, key: Key) -> Manifest | None:
        return self.objects.get((SANDBOX_RUNS.plural, key))

    def runs(self) -> list[Manifest]:
        return [obj for (plural, _), obj in self.objects.items() if plural == "sandboxruns"]

    def edit(self, key: Key, **spec: Any) -> None:
        """What a user changes."""
        obj = self.run(key)
        if obj is not None:
            self.version += 1
            metadata = {
                "resourceVersion": str(self.version),
                "generation": obj["metadata"]["generation"] + 1,
            }
            self._put(key, merged(obj, {"spec": spec, "metadata": metadata}))

    def delete_run(self, key: Key) -> None:
        obj = self.run(key)
        if obj is not None and "deletionTimestamp" not in obj["metadata"]:
            self.version += 1
            metadata = {
                "deletionTimestamp": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                "resourceVersion": str(self.version),
            }
            self._put(key, merged(obj, {"metadata": metadata}))

    async def get(self, resource: Resource, key: Key) -> Manifest | None:
        await _turns(1)
        if resource.plural in self.forbidden:
            raise KubeError(403, "Forbidden", f"{resource.plural} are not to be read")
        return copy.deepcopy(self.objects.get((resource.plural, key)))

    async def list(self, resource: Resource, **_: Any) -> Sequence[Manifest]:
        return [copy.deepcopy(o) for (p, _), o in self.objects.items() if p == resource.plural]

    async def create(self, resource: Resource, obj: Manifest) -> Manifest:
        key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
        if (resource.plural, key) in self.objects:
            raise KubeError(409, "AlreadyExists", f"{key} exists")
        self.objects[resource.plural, key] = copy.deepcopy(obj)
        self.writes.append((key, f"create {resource.plural}"))
        return obj

    async def apply(self, resource: Resource, obj: Manifest) -> Manifest:
        raise NotImplementedError

    async def patch(
        self, resource: Resource, key: Key, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest | None:
        if resource is not SANDBOX_RUNS:
            return None
        await _turns(1)
        if self.failing_patches:
            self.failing_patches -= 1
            raise KubeError(503, "ServiceUnavailable", "on purpose")
        obj = self.run(key)
        if obj is None:
            return None
        wanted = body.get("metadata", {})
        for name in ("resourceVersion", "uid"):
            if name in wanted and wanted[name] != obj["metadata"][name]:
                raise KubeError(409, "Conflict", f"{name} differs")
        self.version += 1
        new = merged(obj, body)
        new["metadata"]["resourceVersion"] = str(self.version)
        if subresource == "status":
            _check_status(obj, new)
        self.writes.append((key, subresource or "metadata"))
        self._put(key, new)
        return copy.deepcopy(new)

    async def delete(self, resource: Resource, key: Key, *, uid: str = "") -> bool:
        self.delete_run(key)
        return True

    def _put(self, key: Key, obj: Manifest) -> None:
        if "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers"):
            del self.objects[SANDBOX_RUNS.plural, key]
        else:
            self.objects[SANDBOX_RUNS.plural, key] = obj


def _check_status(old: Manifest, new: Manifest) -> None:
    """What must hold of every status that is written."""
    status = SandboxRunStatus.model_validate(new["status"])
    broken = kstatus_violations(
        status.conditions,
        generation=new["metadata"]["generation"],
        observed_generation=status.observed_generation,
    )
    assert not broken, broken
    assert len(json.dumps(new["status"])) <= 16 * 1024
    before = old["status"]
    assert not before.get("completionTime"), "a result is stored once and never changed"
    if before.get("sandboxID") and status.sandbox_id is not None:
        assert before["sandboxID"] == status.sandbox_id, "a claim was taken over"


async def _turns(count: int) -> None:
    """Let others go first that often."""
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass
class FakeSandbox:
    info: SandboxInfo
    jobs: set[str] = field(default_factory=set)
    lock: str = ""
    log: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeProvider:
    """Sandboxes that run nothing: tests say when a job ends. ``faults`` hit the next calls.

    A fault is a call's name, its kind, and whether the call takes effect all the same.
    """

    clock: FakeClock
    idempotent: bool = False
    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[Fault, bool]] = field(default_factory=dict)
    created: int = 0
    delays: dict[str, int] = field(default_factory=dict)

    def end_job(self, sandbox_id: str, code: int = 0) -> None:
        sandbox = self.sandboxes[sandbox_id]
        if sandbox.lock and not any('"exit"' in line for line in sandbox.log):
            self._append(sandbox, type="output", stream="stdout", text="out\n")
            self._append(sandbox, type="exit", code=code, reason="completed", seconds=1.0)

    def vanish(self, sandbox_id: str) -> None:
        sandbox = self.sandboxes.pop(sandbox_id, None)
        if sandbox is not None:
            sandbox.changed.set()

    async def create(self, request: CreateRequest) -> SandboxInfo:
        await _turns(self.delays.get("create", 1))
        self._hit("create", before=True)
        known = self.keys.get(request.idempotency_key)
        if self.idempotent and known in self.sandboxes:
            return self.sandboxes[known].info
        self.created += 1
        sandbox_id = f"sbx-{self.created}"
        now = self.clock.now()
        info = SandboxInfo(
            sandbox_id=sandbox_id,
            template_id=request.template_id,
            metadata=dict(request.metadata),
            state="running",
            started_at=now,
            end_at=now + timedelta(seconds=request.lifetime_seconds),
            cpu_count=1,
            memory_mib=512,
        )
        self.sandboxes[sandbox_id] = FakeSandbox(info)
        self.keys[request.idempotency_key] = sandbox_id
        await _turns(self.delays.get("create", 1))
        self._hit("create", before=False)
        return info

    async def get(self, sandbox_id: str) -> SandboxInfo | None:
        await _turns(self.delays.get("get", 1))
        self._hit("get", before=True)
        found = self.sandboxes.get(sandbox_id)
        return found.info if found else None

    async def list(self, metadata: Mapping[str, str]) -> Sequence[SandboxInfo]:
        await _turns(self.delays.get("list", 1))
        self._hit("list", before=True)
        infos = [each.info for each in self.sandboxes.values()]
        return [info for info in infos if metadata.items() <= info.metadata.items()]

    async def kill(self, sandbox_id: str) -> bool:
        await _turns(self.delays.get("kill", 1))
        self._hit("kill", before=True)
        existed = sandbox_id in self.sandboxes
        self.vanish(sandbox_id)
        self._hit("kill", before=False)
        return existed

    async def resume(self, sandbox_id: str, *, lifetime_seconds: int) -> None:
        await _turns(self.delays.get("resume", 1))
        self._hit("resume", before=True)
        self._sandbox(sandbox_id)

    async def upload(self, sandbox_id: str, files: Sequence[File]) -> None:
        await _turns(self.delays.get("upload", 1))
        self._hit("upload", before=True)
        assert not self._sandbox(sandbox_id).lock, "files were written under running code"
        for file in files:
            if found := re.search(r"/job-(.+)\.json$", file.path):
                self._sandbox(sandbox_id).jobs.add(found[1])
        self._hit("upload", before=False)

    async def read(self, sandbox_id: str, path: str, *, limit_bytes: int) -> bytes | None:
        await _turns(self.delays.get("read", 1))
        self._hit("read", before=True)
        lock = self._sandbox(sandbox_id).lock
        return lock.encode() if lock and path.endswith("/lock") else None

    async def follow(self, sandbox_id: str, command: str) -> AsyncIterator[str]:
        await _turns(self.delays.get("follow", 1))
        self._hit("follow", before=True)
        sandbox = self._sandbox(sandbox_id)
        key, offset = command.split()[-2:]
        self._start(sandbox, key)
        self._hit("follow", before=False)
        yield json.dumps({"capibara": 1, "key": key, "from": int(offset)}) + "\n"
        sent = int(offset)
        while True:
            text = "".join(sandbox.log)[sent:]
            sent += len(text)
            if text:
                yield text
            if '"exit"' in text:
                return
            sandbox.changed.clear()
            await sandbox.changed.wait()
            self._sandbox(sandbox_id)
            self._hit("stream", before=True)

    async def ping(self) -> None:
        self._hit("ping", before=True)

    def _start(self, sandbox: FakeSandbox, key: str) -> None:
        if sandbox.lock and sandbox.lock != key:
            raise CommandExitError(75)
        if not sandbox.lock:
            if key not in sandbox.jobs:
                raise CommandExitError(66, "upload it first")
            sandbox.lock = key
            self.starts[key] += 1
            self._append(sandbox, type="started", time=1.0, pid=1)

    def _append(self, sandbox: FakeSandbox, **record: Any) -> None:
        sandbox.log.append(json.dumps({"seq": len(sandbox.log), **record}) + "\n")
        sandbox.changed.set()

    def _sandbox(self, sandbox_id: str) -> FakeSandbox:
        if sandbox_id not in self.sandboxes:
            raise SandboxError(Fault.NOT_FOUND, f"no sandbox {sandbox_id}", 404)
        return self.sandboxes[sandbox_id]

    def _hit(self, call: str, *, before: bool) -> None:
        fault = self.faults.get(call)
        if fault is not None and fault[1] is not before:
            del self.faults[call]
            raise SandboxError(fault[0], f"{call} failed on purpose", 503)
