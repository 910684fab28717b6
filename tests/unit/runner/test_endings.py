"""How a job ends, and what its log then says. No code interpreter: plain processes."""

import asyncio
import base64
import os
import time
from pathlib import Path

import pytest

from capibara_operator.core.runs.protocol import (
    MAX_OUTPUT_BYTES,
    Artifact,
    CodeError,
    ExitReason,
    Job,
    Output,
    Started,
)
from support.sandbox_process import Sandbox, ending, text


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def job(**fields: object) -> Job:
    return Job(**({"key": "uid-1", "deadline_seconds": 20.0} | fields))  # type: ignore[arg-type]


async def test_python_prints_and_ends(sandbox: Sandbox) -> None:
    code = "import sys; print('hello', sys.argv[1:]); print('bad', file=sys.stderr)"
    records = await sandbox.run(job(code=code, args=("a b", "ü")))
    assert isinstance(records[0], Started)
    assert text(records, "stdout") == "hello ['a b', 'ü']\n"
    assert text(records, "stderr") == "bad\n"
    end = ending(records)
    assert (end.code, end.reason, end.truncated) == (0, ExitReason.COMPLETED, False)
    assert (end.stdout_bytes, end.stderr_bytes) == (len("hello ['a b', 'ü']\n".encode()), 4)


async def test_python_exception(sandbox: Sandbox) -> None:
    records = await sandbox.run(job(code="def f():\n    raise ValueError('no\\nway')\nf()"))
    error = next(r for r in records if isinstance(r, CodeError))
    assert (error.name, error.value) == ("ValueError", "no\nway")
    assert error.traceback.startswith("Traceback")
    assert "line 2, in f" in error.traceback
    assert (ending(records).code, ending(records).reason) == (1, ExitReason.COMPLETED)


async def test_memory_error_is_out_of_memory(sandbox: Sandbox) -> None:
    records = await sandbox.run(job(code="raise MemoryError"))
    assert ending(records).reason is ExitReason.OUT_OF_MEMORY


async def test_exit_code_of_code(sandbox: Sandbox) -> None:
    records = await sandbox.run(job(code="raise SystemExit(7)"))
    assert ending(records).code == 7
    assert not [r for r in records if isinstance(r, CodeError)]


async def test_bash_gets_arguments_and_env(sandbox: Sandbox) -> None:
    secret = "'quotes' \"and\" $HOME\nnew line"
    records = await sandbox.run(
        job(language="bash", code='echo "$1|$#|$A"; exit 3', args=("x y", "z"), env={"A": secret})
    )
    assert text(records, "stdout") == f"x y|2|{secret}\n"
    assert ending(records).code == 3


async def test_command(sandbox: Sandbox) -> None:
    records = await sandbox.run(job(command=("printf", "%s-"), args=("a", "b c")))
    assert text(records, "stdout") == "a-b c-"


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_command_that_cannot_start(sandbox: Sandbox, program: str, code: int) -> None:
    records = await sandbox.run(job(command=(program,)))
    assert program in text(records, "stderr")
    assert ending(records).code == code


async def test_killed_by_signal(sandbox: Sandbox) -> None:
    records = await sandbox.run(job(language="bash", code="kill -SEGV $$"))
    assert (ending(records).code, ending(records).reason) == (139, ExitReason.COMPLETED)


async def test_deadline_kills_the_whole_group(sandbox: Sandbox) -> None:
    code = "trap '' TERM; (trap '' TERM; exec sleep 86399) & echo $!; sleep 86399"
    began = time.monotonic()
    records = await sandbox.run(
        job(language="bash", code=code, deadline_seconds=0.5, grace_seconds=0.5)
    )
    assert 1.0 <= time.monotonic() - began < 30.0
    end = ending(records)
    assert (end.code, end.reason) == (137, ExitReason.DEADLINE)
    assert not await _alive(int(text(records, "stdout")))


async def test_deadline_leaves_time_to_end_well(sandbox: Sandbox) -> None:
    code = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    records = await sandbox.run(job(language="bash", code=code, deadline_seconds=0.3))
    assert text(records, "stdout") == "up\nbye\n"
    assert (ending(records).code, ending(records).reason) == (9, ExitReason.DEADLINE)


async def test_term_of_the_worker_cancels(sandbox: Sandbox) -> None:
    sandbox.upload(job(command=("sleep", "86399")))
    async for record, _ in sandbox.follow("uid-1"):
        if isinstance(record, Started):
            os.kill(record.pid, 15)
        last = record
    assert ending([last]).reason is ExitReason.CANCELLED


async def test_background_child_does_not_hold_the_end(sandbox: Sandbox) -> None:
    began = time.monotonic()
    records = await sandbox.run(job(language="bash", code="sleep 60 & echo done"))
    assert time.monotonic() - began < 30
    assert text(records, "stdout") == "done\n"


async def test_binary_output_is_replaced(sandbox: Sandbox) -> None:
    code = r"printf '\xff\xfe ok \xe2\x82'; sleep 0.2; printf '\xac \xe2'"
    records = await sandbox.run(job(language="bash", code=code))
    assert text(records, "stdout") == "�� ok € �"


async def test_partial_line_comes_at_once(sandbox: Sandbox) -> None:
    sandbox.upload(job(language="bash", code="date +%s.%N | tr -d '\\n'; sleep 1"))
    async for record, _ in sandbox.follow("uid-1"):
        if isinstance(record, Output):
            assert time.time() - float(record.text) < 0.3
            break
    else:
        pytest.fail("no output")


async def test_flood_is_truncated_but_keeps_its_end(sandbox: Sandbox) -> None:
    total = 20_000_000
    records = await sandbox.run(
        job(code=f"import sys; sys.stdout.write('x' * {total}); print('THE END')")
    )
    end = ending(records)
    assert end.truncated
    assert end.stdout_bytes == total + len("THE END\n")
    assert text(records, "stdout").endswith("xTHE END\n")
    kept = sum(len(r.text) for r in records if isinstance(r, Output))
    assert kept + sum(r.skipped for r in records if isinstance(r, Output)) == end.stdout_bytes
    assert MAX_OUTPUT_BYTES * 0.9 < kept < MAX_OUTPUT_BYTES
    log = sandbox.home / ".capibara" / "log-uid-1.jsonl"
    assert log.stat().st_size < MAX_OUTPUT_BYTES + 100_000


async def test_artifacts(sandbox: Sandbox) -> None:
    code = (
        "printf '\\x00\\xff' > plot.png; mkdir dir; mkfifo fifo; ln -s plot.png link; "
        "truncate -s 600000 big; false"
    )
    paths = ("plot.png", "~/link", "missing", "dir", "fifo", "big")
    records = await sandbox.run(job(language="bash", code=code, artifacts=paths))
    found = {r.path: r for r in records if isinstance(r, Artifact)}
    assert tuple(found) == paths
    assert found["plot.png"].data == found["~/link"].data == b"\x00\xff"
    assert found["missing"].problem == "No such file or directory"
    assert found["dir"].problem == "Is a directory"
    assert found["fifo"].data is None
    assert (found["big"].size, found["big"].data) == (600_000, None)
    assert "524288" in found["big"].problem
    assert ending(records).code == 1


async def test_artifacts_share_a_limit(sandbox: Sandbox) -> None:
    code = "for i in 0 1 2 3 4 5 6 7 8 9; do head -c 500000 /dev/zero > $i; done"
    records = await sandbox.run(
        job(language="bash", code=code, artifacts=tuple(str(i) for i in range(10)))
    )
    found = [r for r in records if isinstance(r, Artifact)]
    assert [r.data is not None for r in found] == [True] * 9 + [False]


async def test_files_with_secrets_do_not_stay(sandbox: Sandbox) -> None:
    await sandbox.run(job(code="pass", env={"TOKEN": "s3cr3t-value"}))
    for path in (sandbox.home / ".capibara").rglob("*"):
        assert not path.is_file() or b"s3cr3t-value" not in path.read_bytes()


async def test_code_may_be_larger_than_an_argument(sandbox: Sandbox) -> None:
    blob = base64.b64encode(os.urandom(150_000)).decode()
    records = await sandbox.run(job(code=f"print(len({blob!r}))"))
    assert text(records, "stdout") == f"{len(blob)}\n"


async def _alive(pid: int) -> bool:
    for _ in range(20):
        if _state(pid) in {"gone", "Z"}:
            return False
        await asyncio.sleep(0.05)
    return True


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split(") ")[1][0]
    except FileNotFoundError:
        return "gone"
