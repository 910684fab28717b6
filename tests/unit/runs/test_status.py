"""The status of a run stays within what the API server takes, and its end has its labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from capibara_operator.api.run import RunPhase, RunReason
from capibara_operator.core.runs.plan import closing_labels
from capibara_operator.core.runs.record import parse_run
from capibara_operator.core.runs.seen import Refused, Seen
from capibara_operator.core.runs.status import Wait, finished, waiting
from capibara_operator.core.runs.verdict import Verdict

METADATA = {
    "namespace": "ns",
    "name": "r",
    "uid": "u",
    "resourceVersion": "1",
    "creationTimestamp": "2026-01-01T00:00:00Z",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Refused(RunReason.TEMPLATE_NOT_READY, "")
SEEN = Seen(since=NOW, template=NOTHING, provider=NOTHING)
LONG = "x" * 3000


def test_no_message_is_longer_than_the_api_server_takes() -> None:
    run = parse_run({"metadata": METADATA, "spec": {"code": "1"}})
    waits = waiting(run, SEEN, Wait(RunPhase.PENDING, "Waiting", LONG), NOW)
    ends = finished(run, SEEN, Verdict(RunReason.TEMPLATE_NOT_READY, LONG), NOW)
    assert [len(each.message or "") for each in (waits, ends)] == [2048, 2048]


def test_a_time_to_live_becomes_the_second_in_which_the_run_expires() -> None:
    spec = {"code": "1", "ttlSecondsAfterFinished": 60}
    status = {"completionTime": "2026-01-01T00:00:10Z"}
    run = parse_run({"metadata": METADATA, "spec": spec, "status": status})
    assert closing_labels(run) == {
        "capibara6.dev/closed": "true",
        "capibara6.dev/expires-at": str(int((NOW + timedelta(seconds=70)).timestamp())),
    }
