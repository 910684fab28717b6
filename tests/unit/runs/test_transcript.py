"""What is kept of a log, and what a status and an output object make of it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.api.run import MAX_STATUS_BYTES, RunReason, SandboxRunStatus
from capibara_operator.core.runs.outputs import output_entries, output_manifest
from capibara_operator.core.runs.record import parse_run
from capibara_operator.core.runs.records import (
    Artifact,
    CodeError,
    Display,
    Exit,
    ExitReason,
    Output,
)
from capibara_operator.core.runs.results import run_result
from capibara_operator.core.runs.seen import Refused, Seen
from capibara_operator.core.runs.status import finished, status_patch
from capibara_operator.core.runs.transcript import STREAM_BYTES, TAIL_BYTES, Transcript
from capibara_operator.core.runs.verdict import verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = parse_run(
    {
        "metadata": {
            "namespace": "ns",
            "name": "r",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"code": "1"},
        "status": {"sandboxID": "s", "attempt": 1, "startTime": "2026-01-01T00:00:00Z"},
    }
)
NOTHING = Refused(RunReason.TEMPLATE_NOT_FOUND, "none")


def png(size: int) -> str:
    return base64.b64encode(b"\x89PNG" + b"0" * size).decode()


def full_transcript() -> Transcript:
    """As much of everything as a log can hold."""
    made = Transcript()
    for stream in ("stdout", "stderr"):
        made.add(Output(0, stream, '"\\\n' * 200_000))  # type: ignore[arg-type]
    made.add(Display(1, {"text/plain": '"' * 10_000}, main=True))
    for number in range(40):
        made.add(Display(2, {"image/png": png(9_000)}))
        path = f"/a/{'x' * 200}{number}.bin"
        made.add(Artifact(3, path, 3, "", b"abc"))
    made.add(CodeError(4, "E" * 5_000, '"' * 50_000, '"' * 50_000))
    made.add(Exit(5, 1, ExitReason.COMPLETED, 1.0))
    return made


@given(st.lists(st.text(max_size=3000), max_size=8))
def test_a_tail_is_the_end_of_the_stream_and_bounded(pieces: list[str]) -> None:
    made = Transcript()
    for piece in pieces:
        made.add(Output(0, "stdout", piece))
    whole = "".join(pieces).encode("utf-8", "replace")
    tail = made.stdout.tail.encode()
    assert len(tail) <= TAIL_BYTES
    assert whole.endswith(tail)
    assert made.stdout.size == len(whole)
    assert whole.startswith(made.stdout.head.encode("utf-8", "replace"))


def test_what_the_sandbox_left_out_counts() -> None:
    made = Transcript()
    made.add(Output(0, "stdout", "end", skipped=10))
    result = run_result(made)
    assert result is not None
    assert result.stdout is not None
    assert result.stdout.dump() == {"tail": "end", "bytes": 13, "truncated": True}


def test_the_largest_status_and_output_keep_their_limits() -> None:
    made = full_transcript()
    manifest = output_manifest(RUN, made)
    data = sum(len(text) for text in manifest["data"].values())
    blobs = sum(len(base64.b64decode(text)) for text in manifest["binaryData"].values())
    assert data + blobs <= 512 * 1024
    assert len(made.stdout.head) <= STREAM_BYTES
    assert made.notes
    seen = Seen(since=NOW, template=NOTHING, provider=NOTHING, transcript=made, output="r-output")
    assert made.exit is not None
    status = finished(RUN, seen, verdict(made, made.exit, deadline_seconds=5), NOW)
    assert status.reason is RunReason.CODE_ERROR
    assert len(json.dumps(status.dump())) <= MAX_STATUS_BYTES
    SandboxRunStatus.model_validate(status.dump())


def test_keys_of_the_object_are_valid_and_unique() -> None:
    made = Transcript()
    for path in ("a/plot.png", "b/plot.png", "stdout", "/x/ü b.txt", "..", "..x", "display-1.png"):
        made.add(Artifact(0, path, 1, "", b"1"))
    made.add(Display(1, {"image/png": png(1)}))
    names = [blob.name for blob in made.blobs]
    assert names == [
        "plot.png",
        "2-plot.png",
        "2-stdout",
        "--b.txt",
        "artifact",
        "x",
        "display-1.png",
        "2-display-1.png",
    ]
    assert [each.name for each in output_entries(made, "o")] == names


def test_a_broken_picture_is_told_and_left_out() -> None:
    made = Transcript()
    made.add(Display(0, {"image/png": "%%%"}))
    assert (made.blobs, len(made.notes)) == ([], 1)


@pytest.mark.parametrize(
    ("records", "end", "want"),
    [
        ([], Exit(0, 0, ExitReason.COMPLETED, 1), "Completed"),
        ([], Exit(0, 2, ExitReason.COMPLETED, 1), "NonZeroExit"),
        ([], Exit(0, 137, ExitReason.COMPLETED, 1, oom_killed=True), "OutOfMemory"),
        ([], Exit(0, 137, ExitReason.OUT_OF_MEMORY, 1), "OutOfMemory"),
        ([], Exit(0, 137, ExitReason.DEADLINE, 1), "DeadlineExceeded"),
        ([], Exit(0, 143, ExitReason.CANCELLED, 1), "SandboxLost"),
        ([], Exit(0, 137, ExitReason.LOST, 1), "SandboxLost"),
        ([CodeError(0, "ValueError", "x", "")], Exit(1, 1, ExitReason.COMPLETED, 1), "CodeError"),
        ([CodeError(0, "MemoryError", "", "")], Exit(1, 1, ExitReason.COMPLETED, 1), "OutOfMemory"),
    ],
)
def test_verdicts(records: list[Any], end: Exit, want: str) -> None:
    made = Transcript()
    for record in records:
        made.add(record)
    assert verdict(made, end, deadline_seconds=5).reason == want


def test_a_status_patch_removes_sets_and_leaves() -> None:
    stored = {"phase": "Queued", "queue": {"since": "2026-01-01T00:00:00Z", "reason": "full"}}
    status = SandboxRunStatus.model_validate({"phase": "Running", "sandboxID": "s"})
    patch = status_patch(stored, status)
    assert patch is not None
    assert patch["queue"] is None
    assert (patch["phase"], patch["sandboxID"]) == ("Running", "s")
    assert status_patch(status.dump(), status) is None
