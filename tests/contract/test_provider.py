"""The operator's side of a provider, against a real one that runs real sandboxes."""

import asyncio
import dataclasses
import uuid
from contextlib import aclosing

import pytest

from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.ports.sandboxes import (
    CommandExitError,
    CreateRequest,
    Endpoint,
    Fault,
    File,
    SandboxError,
)
from support.sandboxd_process import SandboxdProcess


async def test_create_describe_list_kill(api: E2BSandboxes, request_of: CreateRequest) -> None:
    created = await api.create(request_of)
    try:
        info = await api.get(created.sandbox_id)
        assert info is not None
        assert (info.state, info.memory_mib, info.cpu_count) == ("running", 256, 1)
        assert info.metadata == request_of.metadata
        assert info.started_at is not None
        assert info.end_at is not None
        assert 115 <= (info.end_at - info.started_at).total_seconds() <= 125
        listed = await api.list(request_of.metadata)
        assert [found.sandbox_id for found in listed] == [created.sandbox_id]
        assert await api.list({"uid": str(uuid.uuid4())}) == ()
    finally:
        assert await api.kill(created.sandbox_id) is True
    assert await api.get(created.sandbox_id) is None
    assert await api.kill(created.sandbox_id) is False
    assert await api.list(request_of.metadata) == ()


async def test_create_is_idempotent(api: E2BSandboxes, request_of: CreateRequest) -> None:
    one, two = await asyncio.gather(
        *(api.create(request_of) for _ in range(2)), return_exceptions=True
    )
    listed = await api.list(request_of.metadata)
    try:
        assert len(listed) == 1
        for answer in (one, two):
            if isinstance(answer, SandboxError):
                assert answer.fault is Fault.CONFLICT
            else:
                assert not isinstance(answer, BaseException)
                assert answer.sandbox_id == listed[0].sandbox_id
        again = await api.create(request_of)
        assert again.sandbox_id == listed[0].sandbox_id
        other = dataclasses.replace(request_of, lifetime_seconds=99)
        with pytest.raises(SandboxError) as caught:
            await api.create(other)
        assert caught.value.fault is Fault.CONFLICT
    finally:
        for info in listed:
            await api.kill(info.sandbox_id)


async def test_lifetime_is_only_extended(
    api: E2BSandboxes, sandbox: str, sandboxd: SandboxdProcess
) -> None:
    before = await api.get(sandbox)
    await api.resume(sandbox, lifetime_seconds=10)
    same = await api.get(sandbox)
    await api.resume(sandbox, lifetime_seconds=600)
    after = await api.get(sandbox)
    assert before is not None
    assert same is not None
    assert after is not None
    assert before.end_at is not None
    assert same.end_at is not None
    assert after.end_at is not None
    assert same.end_at >= before.end_at
    assert (after.end_at - before.end_at).total_seconds() > 300


async def test_files(api: E2BSandboxes, sandbox: str) -> None:
    await api.upload(
        sandbox,
        [
            File("/data/deep/a.bin", bytes(range(256)) * 1000),
            File("b.txt", b"b"),
            File("/home/user/ü space.txt", b"u"),
        ],
    )
    content = await api.read(sandbox, "/data/deep/a.bin", limit_bytes=10**6)
    assert content == bytes(range(256)) * 1000
    assert await api.read(sandbox, "/home/user/b.txt", limit_bytes=10) == b"b"
    assert await api.read(sandbox, "ü space.txt", limit_bytes=10) == b"u"
    cut = await api.read(sandbox, "/data/deep/a.bin", limit_bytes=100)
    assert cut is not None
    assert len(cut) == 101
    assert await api.read(sandbox, "/nothing/here", limit_bytes=10) is None


async def follow(api: E2BSandboxes, sandbox: str, command: str) -> str:
    async with aclosing(api.follow(sandbox, command)) as pieces:
        return "".join([piece async for piece in pieces])


async def test_follow_to_the_end(api: E2BSandboxes, sandbox: str) -> None:
    out = await follow(api, sandbox, "for i in 1 2 3; do echo ü$i; sleep 0.1; done")
    assert out == "ü1\nü2\nü3\n"
    numbers = await follow(api, sandbox, "seq 300000")
    assert numbers == "".join(f"{n}\n" for n in range(1, 300_001))


async def test_follow_of_a_failing_command(api: E2BSandboxes, sandbox: str) -> None:
    with pytest.raises(CommandExitError) as caught:
        await follow(api, sandbox, "echo out; echo why >&2; exit 75")
    assert (caught.value.exit_code, caught.value.stderr) == (75, "why\n")


async def test_follower_killed_inside_the_sandbox(api: E2BSandboxes, sandbox: str) -> None:
    with pytest.raises(SandboxError) as caught:
        await follow(api, sandbox, "kill -9 $$")
    assert caught.value.fault is Fault.UNREACHABLE


async def test_disconnecting_leaves_the_command_running(api: E2BSandboxes, sandbox: str) -> None:
    command = "echo up; sleep 0.7; echo done > /tmp/done"
    async with aclosing(api.follow(sandbox, command)) as pieces:
        assert await anext(pieces) == "up\n"
    assert await api.read(sandbox, "/tmp/done", limit_bytes=10) is None
    await asyncio.sleep(1.2)
    assert await api.read(sandbox, "/tmp/done", limit_bytes=10) == b"done\n"


async def test_slow_reader_loses_nothing(api: E2BSandboxes, sandbox: str) -> None:
    seen = ""
    async with aclosing(api.follow(sandbox, "seq 200000")) as pieces:
        async for piece in pieces:
            seen += piece
            if len(seen) < 100_000:
                await asyncio.sleep(0.05)
    assert seen == "".join(f"{n}\n" for n in range(1, 200_001))


async def test_cancelling_the_reader(api: E2BSandboxes, sandbox: str) -> None:
    async def read() -> None:
        await follow(api, sandbox, "echo up; sleep 60")

    task = asyncio.create_task(read())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert await follow(api, sandbox, "echo still here") == "still here\n"


async def test_sandbox_killed_while_followed(api: E2BSandboxes, request_of: CreateRequest) -> None:
    sandbox = (await api.create(request_of)).sandbox_id
    with pytest.raises(SandboxError) as caught:
        async with aclosing(api.follow(sandbox, "echo up; sleep 60")) as pieces:
            assert await anext(pieces) == "up\n"
            await api.kill(sandbox)
            async with asyncio.timeout(15):
                await anext(pieces)
    assert caught.value.fault is Fault.NOT_FOUND


async def test_calls_on_a_sandbox_that_is_gone(
    api: E2BSandboxes, request_of: CreateRequest
) -> None:
    sandbox = (await api.create(request_of)).sandbox_id
    other = E2BSandboxes(_endpoint_of(api), provider="other")
    await other.kill(sandbox)
    with pytest.raises(SandboxError) as known:
        await api.upload(sandbox, [File("a", b"")])
    with pytest.raises(SandboxError) as unknown:
        await other.upload(sandbox, [File("a", b"")])
    with pytest.raises(SandboxError) as followed:
        await follow(api, sandbox, "true")
    assert {known.value.fault, unknown.value.fault, followed.value.fault} == {Fault.NOT_FOUND}


async def test_another_process_attaches(api: E2BSandboxes, sandbox: str) -> None:
    other = E2BSandboxes(_endpoint_of(api), provider="other")
    assert await follow(other, sandbox, "echo $HOME; id -un") == "/home/user\nuser\n"


async def test_wrong_key(sandboxd: SandboxdProcess, request_of: CreateRequest) -> None:
    key = "e2b_" + "0" * 40
    api = E2BSandboxes(Endpoint(sandboxd.url, sandboxd.url, "", key), provider="wrong")
    for call in (api.ping(), api.create(request_of)):
        with pytest.raises(SandboxError) as caught:
            await call
        assert caught.value.fault is Fault.UNAUTHENTICATED
        assert key not in str(caught.value)
        assert "credentialsSecretRef" in str(caught.value)


async def test_unknown_template(api: E2BSandboxes, request_of: CreateRequest) -> None:
    with pytest.raises(SandboxError) as caught:
        await api.create(dataclasses.replace(request_of, template_id="no-such-template"))
    assert caught.value.fault is Fault.NOT_FOUND
    assert "no-such-template" in str(caught.value)
    assert await api.list(request_of.metadata) == ()


async def test_ping(api: E2BSandboxes) -> None:
    await api.ping()


def _endpoint_of(api: E2BSandboxes) -> Endpoint:
    bound = api._sdk._bound_api_params
    return Endpoint(str(bound["api_url"]), str(bound["sandbox_url"]), "", str(bound["api_key"]))
