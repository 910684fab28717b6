"""Attaching, reattaching, the start lock, and what the death of either process changes."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from capibara_operator.core.runs.protocol import EXIT_LOCKED, Exit, ExitReason, Job, Output, Started
from support.sandbox_process import Sandbox, ending, text

SLOW = Job(
    "uid-1",
    20.0,
    language="bash",
    code="echo run >> runs; for i in 1 2 3 4; do echo $i; sleep 0.2; done",
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


async def test_reattach_from_every_offset(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    whole = [pair async for pair in sandbox.follow("uid-1")]
    assert text([record for record, _ in whole], "stdout") == "1\n2\n3\n4\n"
    for index, (_, offset) in enumerate(whole):
        again = [pair async for pair in sandbox.follow("uid-1", offset)]
        assert again == whole[index + 1 :]
    assert (sandbox.home / "runs").read_text() == "run\n"


async def test_kill_of_the_follower_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    seen = []
    seen_to = 0
    async for record, offset in sandbox.follow("uid-1"):
        seen.append(record)
        seen_to = offset
        if isinstance(record, Output):
            break  # closing the iterator kills the follower with SIGKILL
    seen += await sandbox.records("uid-1", seen_to)
    assert text(seen, "stdout") == "1\n2\n3\n4\n"
    assert [record.seq for record in seen] == list(range(len(seen)))
    assert ending(seen).reason is ExitReason.COMPLETED
    assert (sandbox.home / "runs").read_text() == "run\n"


async def test_two_followers_see_the_same(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    one, two = await asyncio.gather(sandbox.records("uid-1"), sandbox.records("uid-1"))
    assert one == two
    assert (sandbox.home / "runs").read_text() == "run\n"


async def test_many_starters_run_the_job_once(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    logs = await asyncio.gather(*(sandbox.records("uid-1") for _ in range(8)))
    assert all(log == logs[0] for log in logs)
    assert (sandbox.home / "runs").read_text() == "run\n"


async def test_another_key_is_refused(sandbox: Sandbox) -> None:
    await sandbox.run(SLOW)
    sandbox.upload(Job("uid-2", 5.0, language="bash", code="echo run >> runs"))
    follower = await sandbox.follower("uid-2")
    out, err = await follower.communicate()
    assert (follower.returncode, out) == (EXIT_LOCKED, b"")
    assert b"another job holds this sandbox" in err
    assert (sandbox.home / "runs").read_text() == "run\n"


async def test_job_that_was_not_uploaded(sandbox: Sandbox) -> None:
    sandbox.upload(Job("uid-2", 5.0, code="pass"))
    follower = await sandbox.follower("uid-1")
    _, err = await follower.communicate()
    assert follower.returncode == 66
    assert b"upload it first" in err
    assert not (sandbox.home / ".capibara" / "lock").exists()


async def test_offset_past_the_end(sandbox: Sandbox) -> None:
    await sandbox.run(SLOW)
    follower = await sandbox.follower("uid-1", 10**6)
    await follower.communicate()
    assert follower.returncode == 65


async def test_dead_worker_is_reported_as_lost(sandbox: Sandbox) -> None:
    sandbox.upload(Job("uid-1", 60.0, language="bash", code="echo before; exec sleep 600"))
    sleeper = None
    seen = []
    behind_output = 0
    async for record, offset in sandbox.follow("uid-1"):
        seen.append(record)
        if isinstance(record, Output):
            behind_output = offset
            worker = seen[0]
            assert isinstance(worker, Started)
            sleeper = _child_of(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
    end = ending(seen)
    assert (end.reason, end.oom_killed, end.seq) == (ExitReason.LOST, False, len(seen) - 1)
    again = await sandbox.records("uid-1", behind_output)
    assert [type(r) for r in again] == [Exit]
    assert ending(again).reason is ExitReason.LOST
    assert sleeper is not None
    os.kill(sleeper, signal.SIGKILL)


async def test_worker_killed_for_memory_is_told_apart(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    state = sandbox.home / ".capibara"
    (state / "lock").write_text("uid-1")
    # A base below what any machine counts: the killer has struck since.
    started = {"type": "started", "seq": 0, "time": 1.0, "pid": 1, "oomKills": -1}
    (state / "log-uid-1.jsonl").write_text(json.dumps(started) + "\n")
    end = ending(await sandbox.records("uid-1"))
    assert (end.reason, end.code, end.oom_killed) == (ExitReason.OUT_OF_MEMORY, 137, True)


async def test_half_written_line_of_a_dead_worker_is_left_out(sandbox: Sandbox) -> None:
    await sandbox.run(SLOW)
    log = sandbox.home / ".capibara" / "log-uid-1.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[: content.rindex(b'{"type": "exit"') + 9])
    records = await sandbox.records("uid-1")
    assert ending(records).reason is ExitReason.LOST
    assert text(records, "stdout") == "1\n2\n3\n4\n"


async def test_starter_that_died_before_the_fork(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    (sandbox.home / ".capibara" / "lock").write_text("uid-1")
    records = await sandbox.records("uid-1")
    assert [type(r) for r in records] == [Exit]
    assert ending(records).reason is ExitReason.LOST
    assert not (sandbox.home / "runs").exists()


async def test_job_outlives_the_session_of_the_follower(sandbox: Sandbox) -> None:
    sandbox.upload(SLOW)
    follower = await sandbox.follower("uid-1")
    assert follower.stdout is not None
    await follower.stdout.readline()
    started = await follower.stdout.readline()
    assert b'"started"' in started
    follower.kill()
    await follower.wait()
    records = await sandbox.records("uid-1")
    assert ending(records).reason is ExitReason.COMPLETED
    worker = records[0]
    assert isinstance(worker, Started)
    assert worker.pid != follower.pid


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return int(children.split()[0])
