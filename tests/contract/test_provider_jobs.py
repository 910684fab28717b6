"""The runner inside real sandboxes, through the adapter."""

import asyncio
import base64
import time
import uuid
from contextlib import aclosing

import pytest

from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.core.runs.protocol import (
    EXIT_LOCKED,
    Artifact,
    CodeError,
    Display,
    Exit,
    ExitReason,
    Job,
    LogReader,
    Output,
    Record,
    follow_command,
)
from capibara_operator.ports.sandboxes import (
    CommandExitError,
    CreateRequest,
    Fault,
    File,
    SandboxError,
)
from support.provider_run import ProviderRun

PNG = b"\x89PNG\r\n\x1a\n"


def text(records: list[Record], stream: str = "stdout") -> str:
    return "".join(r.text for r in records if isinstance(r, Output) and r.stream == stream)


def ending(records: list[Record]) -> tuple[int, ExitReason]:
    assert isinstance(records[-1], Exit)
    return records[-1].code, records[-1].reason


async def test_python_plots(run: ProviderRun) -> None:
    code = """
import matplotlib.pyplot as plt, pandas as pd
df = pd.read_csv("/data/sales.csv")
df.plot(); plt.savefig("plot.png"); plt.show()
print("rows", len(df))
int(df.total.sum())
"""
    records = await run(
        template="visualization",
        code=code,
        files=(File("/data/sales.csv", b"total\n1\n2\n39\n"),),
        artifacts=("plot.png",),
    )
    assert ending(records) == (0, ExitReason.COMPLETED), records
    assert text(records) == "rows 3\n"
    shown = [r for r in records if isinstance(r, Display)]
    plots = [base64.b64decode(r.data["image/png"]) for r in shown if "image/png" in r.data]
    assert len(plots) == 1
    assert plots[0].startswith(PNG)
    assert [r.data["text/plain"] for r in shown if r.main] == ["42"]
    (artifact,) = [r for r in records if isinstance(r, Artifact)]
    assert artifact.data is not None
    assert artifact.data.startswith(PNG)


async def test_python_env_args_and_exit_code(run: ProviderRun) -> None:
    value = 'it\'s "quoted" {x} \\ \n ü'
    records = await run(
        code="import os, sys; print(os.environ['V'], sys.argv[1:], os.getcwd()); sys.exit(4)",
        env={"V": value},
        args=("a b",),
    )
    assert text(records) == f"{value} ['a b'] /home/user\n"
    assert text(records, "stderr") == ""
    assert ending(records) == (4, ExitReason.COMPLETED)


async def test_python_error(run: ProviderRun) -> None:
    records = await run(code="print('before')\nraise KeyError('x')")
    (error,) = [r for r in records if isinstance(r, CodeError)]
    assert (error.name, error.value) == ("KeyError", "'x'")
    assert "raise KeyError" in error.traceback
    assert text(records) == "before\n"
    assert ending(records) == (1, ExitReason.COMPLETED)


async def test_bash_and_command(run: ProviderRun) -> None:
    records = await run(
        language="bash", code='echo "$0 $1 $A"; exit 3', args=("x",), env={"A": "b"}
    )
    assert text(records).endswith("main.sh x b\n")
    assert ending(records) == (3, ExitReason.COMPLETED)
    records = await run(command=("id", "-u"))
    assert ending(records) == (0, ExitReason.COMPLETED)
    assert int(text(records)) > 0


async def test_output_comes_while_the_code_runs(run: ProviderRun) -> None:
    code = "import time\nfor i in range(4):\n    print(time.time(), flush=True); time.sleep(0.3)"
    job = Job(f"{uuid.uuid4()}-1", 60.0, code=code)
    info = await run.api.create(CreateRequest("quick-script", {}, job.key, 120))
    await run.upload(info.sandbox_id, job)
    reader, delays = LogReader(job.key), []
    async with aclosing(run.api.follow(info.sandbox_id, follow_command(job.key))) as pieces:
        async for piece in pieces:
            delays += [
                time.time() - float(record.text.split()[0])
                for record in reader.feed(piece)
                if isinstance(record, Output)
            ]
    await run.api.kill(info.sandbox_id)
    assert len(delays) == 4
    assert max(delays) < 0.25


async def test_python_deadline(run: ProviderRun) -> None:
    records = await run(
        code="import time; print('up', flush=True); time.sleep(60)", deadline_seconds=7.0
    )
    assert text(records) == "up\n"
    code, reason = ending(records)
    assert reason is ExitReason.DEADLINE
    assert code in {130, 137}


async def test_bash_deadline_of_what_ignores_the_first_signal(run: ProviderRun) -> None:
    records = await run(
        language="bash",
        code="trap '' TERM; echo up; while :; do sleep 1; done",
        deadline_seconds=1.0,
        grace_seconds=0.5,
    )
    assert ending(records) == (137, ExitReason.DEADLINE)


async def test_lost_kernel(run: ProviderRun) -> None:
    records = await run(code="import os; print('up', flush=True); os._exit(9)")
    assert [r.name for r in records if isinstance(r, CodeError)] == ["KernelDied"]
    assert ending(records) == (1, ExitReason.COMPLETED)


EATER = "b = []\nwhile True: b.append(bytearray(b'x' * 10_000_000))"


@pytest.mark.parametrize(("language", "code"), [("python", EATER), ("bash", "tail /dev/zero")])
async def test_out_of_memory(run: ProviderRun, language: str, code: str) -> None:
    records = await run(language=language, code=code)
    assert ending(records) == (137, ExitReason.OUT_OF_MEMORY), records
    assert isinstance(records[-1], Exit)
    assert records[-1].oom_killed


async def test_reconnect_and_another_key(run: ProviderRun, api: E2BSandboxes) -> None:
    job = Job(
        f"{uuid.uuid4()}-1", 60.0, language="bash",
        code="echo run >> runs; for i in 1 2 3 4 5; do echo $i; sleep 0.3; done",
        artifacts=("runs",),
    )  # fmt: skip
    info = await api.create(CreateRequest("quick-script", {}, job.key, 120))
    try:
        await run.upload(info.sandbox_id, job)
        reader, records = LogReader(job.key), []
        async with aclosing(api.follow(info.sandbox_id, follow_command(job.key))) as pieces:
            async for piece in pieces:
                records += reader.feed(piece)
                if "2\n" in text(records):
                    break
        again = LogReader(job.key, reader.offset)
        command = follow_command(job.key, reader.offset)
        async with aclosing(api.follow(info.sandbox_id, command)) as pieces:
            async for piece in pieces:
                records += again.feed(piece)
        assert text(records) == "1\n2\n3\n4\n5\n"
        assert [r.seq for r in records] == list(range(len(records)))
        assert [r.data for r in records if isinstance(r, Artifact)] == [b"run\n"]
        other = Job(f"{uuid.uuid4()}-1", 60.0, code="pass")
        await run.upload(info.sandbox_id, other)
        with pytest.raises(CommandExitError) as caught:
            async for _ in api.follow(info.sandbox_id, follow_command(other.key)):
                pass
        assert caught.value.exit_code == EXIT_LOCKED
    finally:
        await api.kill(info.sandbox_id)


async def test_sandbox_killed_under_a_job(run: ProviderRun, api: E2BSandboxes) -> None:
    job = Job(f"{uuid.uuid4()}-1", 60.0, language="bash", code="echo up; sleep 60")
    info = await api.create(CreateRequest("quick-script", {}, job.key, 120))
    await run.upload(info.sandbox_id, job)
    reader, records, up = LogReader(job.key), list[Record](), asyncio.Event()

    async def follow() -> None:
        async for piece in api.follow(info.sandbox_id, follow_command(job.key)):
            records.extend(reader.feed(piece))
            if text(records) == "up\n":
                up.set()

    task = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        await up.wait()
        await api.kill(info.sandbox_id)
        with pytest.raises(SandboxError) as caught:
            await task
    assert caught.value.fault is Fault.NOT_FOUND
    assert not [r for r in records if isinstance(r, Exit)]
