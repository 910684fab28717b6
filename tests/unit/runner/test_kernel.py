"""Python through a code interpreter, whose answers are scripted here.

The real interpreter runs in tests/contract.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from capibara_operator.core.runs.protocol import CodeError, Display, ExitReason, Job, Record
from support.code_interpreter import CodeInterpreter
from support.sandbox_process import Sandbox, ending, text

END = {"type": "end_of_execution"}


async def run(home: Path, events: list[Any], **fields: Any) -> tuple[list[Record], CodeInterpreter]:
    pid = fields.pop("pid", 0)
    with CodeInterpreter(events, pid=pid) as interpreter:
        defaults: dict[str, Any] = {"key": "uid-1", "code": "x", "deadline_seconds": 20.0}
        records = await Sandbox(home, interpreter.port).run(Job(**(defaults | fields)))
    return records, interpreter


async def test_settings_go_by_a_file_and_never_in_code(tmp_path: Path) -> None:
    secret = "a'\"\\n{}\u2028secret"
    records, interpreter = await run(tmp_path, [END], env={"A": secret}, args=("1", "2"))
    assert interpreter.settings == {
        "env": {"A": secret},
        "args": ["1", "2"],
        "workdir": str(tmp_path),
    }
    assert interpreter.codes[1] == "x"
    assert not [code for code in interpreter.codes if "secret" in code]
    assert ending(records).code == 0


async def test_output_and_rich_results(tmp_path: Path) -> None:
    result = {
        "type": "result",
        "text": "Figure",
        "png": "aGk=",
        "chart": {"type": "line"},
        "extra": {"application/x": 1},
        "is_main_result": True,
    }
    records, _ = await run(
        tmp_path,
        [
            {"type": "stdout", "text": "o\n"},
            {"type": "stderr", "text": "e\n"},
            {"type": "keepalive"},
            result,
            {"type": "result", "html": "<b>", "is_main_result": False},
            {"type": "number_of_executions", "execution_count": 2},
            END,
        ],
    )
    assert (text(records, "stdout"), text(records, "stderr")) == ("o\n", "e\n")
    shown = [r for r in records if isinstance(r, Display)]
    assert [r.main for r in shown] == [True, False]
    assert shown[0].data == {
        "text/plain": "Figure",
        "image/png": "aGk=",
        "e2b/chart": '{"type": "line"}',
        "application/x": "1",
    }


def error(name: str, value: str) -> dict[str, str]:
    return {"type": "error", "name": name, "value": value, "traceback": "Traceback ..."}


@pytest.mark.parametrize(
    ("value", "code", "stderr"), [("0", 0, ""), ("", 0, ""), ("3", 3, ""), ("no", 1, "no\n")]
)
async def test_system_exit(tmp_path: Path, value: str, code: int, stderr: str) -> None:
    records, _ = await run(tmp_path, [error("SystemExit", value), END])
    assert (ending(records).code, text(records, "stderr")) == (code, stderr)
    assert not [r for r in records if isinstance(r, CodeError)]


async def test_exception(tmp_path: Path) -> None:
    records, _ = await run(tmp_path, [error("ValueError", "no"), END])
    found = [r for r in records if isinstance(r, CodeError)]
    assert [(r.name, r.value, r.traceback) for r in found] == [
        ("ValueError", "no", "Traceback ...")
    ]
    assert (ending(records).code, ending(records).reason) == (1, ExitReason.COMPLETED)


async def test_memory_error(tmp_path: Path) -> None:
    records, _ = await run(tmp_path, [error("_ArrayMemoryError", "8 GiB"), END])
    assert ending(records).reason is ExitReason.OUT_OF_MEMORY


@pytest.mark.parametrize("events", [[], [error("ContextRestarting", "restarted"), END]])
async def test_lost_kernel(tmp_path: Path, events: list[Any]) -> None:
    records, _ = await run(tmp_path, [{"type": "stdout", "text": "last words"}, *events])
    assert text(records, "stdout") == "last words"
    assert [r.name for r in records if isinstance(r, CodeError)] == ["KernelDied"]
    assert (ending(records).code, ending(records).reason) == (1, ExitReason.COMPLETED)


async def test_deadline_interrupts_then_kills_the_kernel(tmp_path: Path) -> None:
    # Not bash: it cannot trap what was ignored when it started, as in a background job.
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    kernel = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert kernel.stdout
    assert await kernel.stdout.readline() == b"ready\n"
    began = time.monotonic()
    records, _ = await run(
        tmp_path,
        [lambda: time.sleep(12)],
        pid=kernel.pid,
        deadline_seconds=2,
        grace_seconds=1,
    )
    assert time.monotonic() - began < 12
    assert (ending(records).code, ending(records).reason) == (137, ExitReason.DEADLINE)
    out, _ = await asyncio.wait_for(kernel.communicate(), 5)
    assert out.startswith(b"interrupted\n")
    assert kernel.returncode == -9


async def test_interpreter_that_refuses(tmp_path: Path) -> None:
    records, _ = await run(tmp_path, [error("InterpreterError", "500 no kernel"), END])
    assert [r.value for r in records if isinstance(r, CodeError)] == ["500 no kernel"]
    assert ending(records).code == 1


async def test_preamble_is_valid_code_and_applies_the_settings(tmp_path: Path) -> None:
    """The preamble itself, run by a real Python."""
    from capibara_operator.runner.kernel import PREAMBLE  # noqa: PLC0415

    settings = tmp_path / "settings.json"
    settings.write_text('{"env": {"A": "\\u00e9"}, "args": ["x"], "workdir": "/"}')
    code = PREAMBLE % repr(str(settings))
    code += "import os, sys; print(os.environ['A'], sys.argv, os.getcwd())\n"
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", code, stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1"},
    )  # fmt: skip
    out, _ = await process.communicate()
    assert out.decode() == f"{process.pid}\né ['main.py', 'x'] /\n"
    assert not settings.exists()
