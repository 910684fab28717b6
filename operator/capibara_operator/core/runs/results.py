"""What of a transcript goes into a status."""

from capibara_operator.api.run import (
    MAX_TEXT_BYTES,
    CodeFailure,
    RunResult,
    StreamTail,
)
from capibara_operator.core.runs.records import CodeError
from capibara_operator.core.runs.transcript import Stream, Transcript, cut, cut_tail

_MAX_NAME_BYTES = 250
_MAX_VALUE_BYTES = 1000


def run_result(transcript: Transcript) -> RunResult | None:
    """The code's result as far as it is known; None before the code started."""
    if not transcript.records:
        return None
    return RunResult(
        text=transcript.text or None,
        error=None if transcript.error is None else _failure(transcript.error),
        stdout=_tail(transcript.stdout),
        stderr=_tail(transcript.stderr),
    )


def shrink_result(result: RunResult | None, limit: int) -> RunResult | None:
    """The result with no text of more than ``limit`` bytes."""
    if result is None:
        return None
    error = result.error
    if error is not None:
        shorter = {
            "traceback": cut_tail(error.traceback, limit),
            "value": cut(error.value, limit),
        }
        error = error.model_copy(update=shorter)
    return result.model_copy(
        update={
            "text": None if result.text is None else cut(result.text, limit),
            "error": error,
            "stdout": _shrink_tail(result.stdout, limit),
            "stderr": _shrink_tail(result.stderr, limit),
        }
    )


def _failure(error: CodeError) -> CodeFailure:
    return CodeFailure(
        name=cut(error.name, _MAX_NAME_BYTES),
        value=cut(error.value, _MAX_VALUE_BYTES),
        traceback=cut_tail(error.traceback, MAX_TEXT_BYTES),
    )


def _tail(stream: Stream) -> StreamTail | None:
    if not stream.size:
        return None
    return StreamTail(
        tail=stream.tail,
        bytes=stream.size,
        truncated=len(stream.tail.encode("utf-8", "replace")) < stream.size,
    )


def _shrink_tail(tail: StreamTail | None, limit: int) -> StreamTail | None:
    if tail is None:
        return None
    text = cut_tail(tail.tail, limit)
    return tail.model_copy(update={"tail": text, "truncated": tail.truncated or text != tail.tail})
