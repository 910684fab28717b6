"""The reader of a job's log: what it accepts, and that nothing else gets through."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.core.runs.protocol import (
    MAX_LINE_BYTES,
    Artifact,
    Exit,
    ExitReason,
    Job,
    LogReader,
    Output,
    ProtocolError,
    follow_command,
    job_files,
)

KEY = "uid-1"
HEADER = '{"capibara":1,"key":"uid-1","from":0}\n'
EXIT = {"type": "exit", "seq": 0, "code": 3, "reason": "completed", "seconds": 1.5}


def line(**fields: object) -> str:
    return json.dumps(fields) + "\n"


@given(st.lists(st.integers(1, 60)))
def test_pieces_may_be_cut_anywhere(cuts: list[int]) -> None:
    log = line(type="output", seq=0, stream="stdout", text="aé\n") + line(**EXIT | {"seq": 1})
    whole, reader, records = HEADER + log, LogReader(KEY), []
    for cut in cuts:
        records += reader.feed(whole[:cut])
        whole = whole[cut:]
    records += reader.feed(whole)
    assert records == [
        Output(0, "stdout", "aé\n"),
        Exit(1, 3, ExitReason.COMPLETED, 1.5),
    ]
    assert reader.offset == len(log)


def test_offset_counts_complete_lines_only() -> None:
    reader = LogReader(KEY, 100)
    first = line(**EXIT | {"seq": 7})
    reader.feed(HEADER.replace("0}", "100}") + first + '{"type"')
    assert reader.offset == 100 + len(first)


def test_noise_of_a_login_shell_is_skipped() -> None:
    reader = LogReader(KEY)
    assert len(reader.feed("Welcome!\nünïcode\n" + HEADER + line(**EXIT))) == 1
    assert reader.offset == len(line(**EXIT))


def test_unknown_record_type_is_skipped() -> None:
    reader = LogReader(KEY)
    records = reader.feed(HEADER + line(type="new", seq=0, x={}) + line(**EXIT | {"seq": 1}))
    assert [type(record) for record in records] == [Exit]


def test_half_surrogates_become_encodable() -> None:
    (record,) = LogReader(KEY).feed(
        HEADER + '{"type":"output","seq":0,"stream":"stdout","text":"\\ud800 \\ud83d\\ude00"}\n'
    )
    assert isinstance(record, Output)
    assert record.text == "? 😀"


ARTIFACT = {
    "type": "artifact", "seq": 0, "path": "a", "size": 2,
    "sha256": hashlib.sha256(b"hi").hexdigest(), "data": base64.b64encode(b"hi").decode(),
}  # fmt: skip


def test_artifact() -> None:
    (record,) = LogReader(KEY).feed(HEADER + line(**ARTIFACT))
    assert isinstance(record, Artifact)
    assert record.data == b"hi"


@pytest.mark.parametrize(
    "garbage",
    [
        "null\n",
        "[]\n",
        "{}\n",
        "{\n",
        "\n",
        '{"type":"exit"\n',
        "[" * 100_000 + "\n",
        line(type=1, seq=0),
        line(type="exit", seq=0),
        line(**EXIT | {"code": 256}),
        line(**EXIT | {"code": -1}),
        line(**EXIT | {"code": True}),
        line(**EXIT | {"code": 10**400}),
        line(**EXIT | {"reason": "magic"}),
        line(**EXIT | {"seconds": "1"}),
        line(**EXIT | {"oomKilled": 1}),
        line(**EXIT | {"seq": 5}),
        line(**EXIT).replace("1.5", "NaN"),
        line(**EXIT).replace("1.5", "1e999"),
        line(**EXIT).replace("1.5", '1.5,"é":1'),
        line(type="output", seq=0, stream="other", text=""),
        line(type="output", seq=0, stream="stdout", text=5),
        line(type="output", seq=0, stream=["stdout"], text=""),
        line(type="output", seq=0, stream="stdout", text="x" * 1_000_001),
        line(type="display", seq=0, data=[]),
        line(type="display", seq=0, data={"a": 1}),
        line(type="display", seq=0, data={str(n): "" for n in range(33)}),
        line(type="display", seq=0, data={}, omitted=[1]),
        line(**ARTIFACT | {"data": "*"}),
        line(**ARTIFACT | {"size": 3}),
        line(**ARTIFACT | {"sha256": ""}),
        line(**ARTIFACT | {"path": ""}),
        "x" * (MAX_LINE_BYTES + 1),
    ],
    ids=lambda garbage: f"{len(garbage)}:{garbage[:40].strip()}",
)
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(ProtocolError):
        LogReader(KEY).feed(HEADER + garbage)


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        LogReader(KEY).feed(HEADER + text + "\n")
    except ProtocolError as error:
        assert text == "" or len(text) < 5 or text not in str(error)


@pytest.mark.parametrize(
    "header", [HEADER.replace("uid-1", "uid-2"), HEADER.replace("0}", "1}"), '{"capibara":\n']
)
def test_answer_for_something_else_is_refused(header: str) -> None:
    with pytest.raises(ProtocolError):
        LogReader(KEY).feed(header)


def test_endless_noise_is_refused() -> None:
    reader = LogReader(KEY)
    with pytest.raises(ProtocolError):
        for _ in range(100):
            reader.feed("x" * 999 + "\n")


def test_endless_log_is_refused() -> None:
    reader = LogReader(KEY)
    reader.feed(HEADER)
    with pytest.raises(ProtocolError):
        for seq in range(30):
            reader.feed(line(type="output", seq=seq, stream="stdout", text="x" * 999_000))


@pytest.mark.parametrize("key", ["", "A", "a b", "a;b", "../x", "x" * 200, "a\n"])
def test_keys_are_safe_in_a_shell_and_a_path(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Job(key, 1.0, code="")
    with pytest.raises(ValueError, match="key"):
        follow_command(key)


def test_job_has_code_or_command() -> None:
    with pytest.raises(ValueError, match="either"):
        Job(KEY, 1.0)
    with pytest.raises(ValueError, match="either"):
        Job(KEY, 1.0, code="", command=("true",))


def test_program_is_uploaded_whole_and_runs_on_old_pythons() -> None:
    import ast  # noqa: PLC0415

    files = dict(job_files(Job(KEY, 1.0, code="print(1)", env={"A": "é"})))
    names = {Path(path).name for path in files}
    assert {"__init__.py", "follow.py", "worker.py", "job-uid-1.json"} <= names
    for path, data in files.items():
        if path.endswith(".py"):
            tree = ast.parse(data, feature_version=(3, 8))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    modules = {name.name.split(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules = {str(node.module).split(".")[0]}
                else:
                    continue
                assert modules <= sys.stdlib_module_names


def test_command_is_one_shell_word_list() -> None:
    command = follow_command(KEY, 12).replace("exec python3", "printf '%s\\n'")
    out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-2:] == ["uid-1", "12"]
