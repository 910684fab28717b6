"""What the end of a job means for its run."""

from dataclasses import dataclass

from capibara_operator.api.run import RunReason
from capibara_operator.core.runs.records import CodeError, Exit, ExitReason
from capibara_operator.core.runs.transcript import Transcript, cut

_MAX_QUOTE_BYTES = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ends, for programs and for people."""

    reason: RunReason
    message: str
    exit_code: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether this is the good end."""
        return self.reason is RunReason.COMPLETED


def verdict(transcript: Transcript, end: Exit, *, deadline_seconds: int) -> Verdict:
    """Judge a job by its exit record and what it printed before."""
    match end.reason:
        case ExitReason.COMPLETED:
            return _completed(transcript.error, end)
        case ExitReason.DEADLINE:
            return deadline_exceeded(deadline_seconds, end.code)
        case ExitReason.OUT_OF_MEMORY:
            return _out_of_memory(end.code)
        case ExitReason.CANCELLED:
            return Verdict(
                RunReason.SANDBOX_LOST,
                "The job was stopped from inside the sandbox, not by the operator. "
                "Create the run again.",
                end.code,
            )
        case ExitReason.LOST:
            return lost("the process that watched over the code died inside the sandbox")


def deadline_exceeded(seconds: int, exit_code: int | None = None) -> Verdict:
    """The code ran for too long."""
    return Verdict(
        RunReason.DEADLINE_EXCEEDED,
        f"The code did not end within its deadline of {seconds} s and was stopped. "
        "Raise spec.activeDeadlineSeconds, or do less in one run.",
        exit_code,
    )


def lost(why: str) -> Verdict:
    """The sandbox, and with it the result, is gone."""
    return Verdict(
        RunReason.SANDBOX_LOST,
        f"The result is lost: {why}. It is not known how far the code came. "
        "Create the run again if it may run twice.",
    )


def cancelled() -> Verdict:
    """The user asked for the end."""
    return Verdict(RunReason.CANCELLED, "The run was cancelled by spec.cancel.")


def _completed(error: CodeError | None, end: Exit) -> Verdict:
    if end.oom_killed and end.code != 0:
        return _out_of_memory(end.code)
    if error is not None and end.code != 0:
        if error.name == "MemoryError":
            return _out_of_memory(end.code)
        quote = cut(f"{error.name}: {error.value}".splitlines()[0], _MAX_QUOTE_BYTES)
        return Verdict(
            RunReason.CODE_ERROR,
            f"The code raised {quote}. See status.result.error for the traceback.",
            end.code,
        )
    if end.code != 0:
        return Verdict(
            RunReason.NON_ZERO_EXIT,
            f"The code exited with code {end.code}. See status.result.stderr for what it said.",
            end.code,
        )
    return Verdict(RunReason.COMPLETED, "The code ran to its end.", 0)


def _out_of_memory(exit_code: int | None) -> Verdict:
    return Verdict(
        RunReason.OUT_OF_MEMORY,
        "The code used up the sandbox's memory. Use a template with more memory, "
        "or hold less data at a time.",
        exit_code,
    )
