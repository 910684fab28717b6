"""What repeated probes mean."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.api.service import CapibaraServiceSpec, EndpointState, EndpointStatus
from capibara_operator.core.services.probing import (
    Address,
    Check,
    Outcome,
    Track,
    checks,
    parse_overrides,
    record,
    refusal,
    verdict,
)

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
GOOD = Outcome()
HTTP500 = Outcome("HTTP500")
TIMEOUT = Outcome("Timeout")
DEAD = Outcome("Unreachable", reached=False)


def play(*outcomes: Outcome, threshold: int = 3) -> Track:
    track = Track()
    for outcome in outcomes:
        track = record(track, outcome, threshold=threshold)
    return track


@dataclass(frozen=True)
class TrackCase:
    reason: str
    outcomes: tuple[Outcome, ...]
    state: EndpointState | None
    cause: str = ""


TRACKS = [
    TrackCase("before any probe nothing is known", (), None),
    TrackCase("one good answer is enough", (GOOD,), EndpointState.HEALTHY),
    TrackCase("failures below the threshold decide nothing", (HTTP500, HTTP500), None),
    TrackCase(
        "a healthy endpoint survives failures below the threshold",
        (GOOD, HTTP500, HTTP500),
        EndpointState.HEALTHY,
    ),
    TrackCase(
        "the threshold makes it failing",
        (GOOD, HTTP500, HTTP500, HTTP500),
        EndpointState.FAILING,
        "HTTP500",
    ),
    TrackCase(
        "a good answer between failures starts the count anew",
        (HTTP500, HTTP500, GOOD, HTTP500, HTTP500),
        EndpointState.HEALTHY,
    ),
    TrackCase(
        "one good answer heals",
        (HTTP500, HTTP500, HTTP500, GOOD),
        EndpointState.HEALTHY,
    ),
    TrackCase(
        "another failure once is not another reason yet",
        (HTTP500, HTTP500, HTTP500, TIMEOUT, TIMEOUT),
        EndpointState.FAILING,
        "HTTP500",
    ),
    TrackCase(
        "another failure as often as the threshold is the new reason",
        (HTTP500, HTTP500, HTTP500, TIMEOUT, TIMEOUT, TIMEOUT),
        EndpointState.FAILING,
        "Timeout",
    ),
    TrackCase(
        "alternating failures keep the first reason",
        (HTTP500, HTTP500, HTTP500, TIMEOUT, HTTP500, TIMEOUT, HTTP500, TIMEOUT),
        EndpointState.FAILING,
        "HTTP500",
    ),
]


@pytest.mark.parametrize("case", TRACKS, ids=lambda case: case.reason)
def test_record(case: TrackCase) -> None:
    track = play(*case.outcomes)
    assert (track.state, track.reason) == (case.state, case.cause)


FAILING = play(HTTP500, HTTP500, HTTP500)
HEALTHY = play(GOOD)
UNREACHED = play(DEAD, DEAD, DEAD)


def found(state: EndpointState, reason: str = "") -> EndpointStatus:
    since = datetime(2026, 5, 1, tzinfo=UTC)
    return EndpointStatus(name="query", state=state, reason=reason, since=since)


@dataclass(frozen=True)
class VerdictCase:
    reason: str
    tracks: tuple[Track, ...]
    want: tuple[EndpointState, str]
    last: EndpointStatus | None = None
    reached_anywhere: bool = True


VERDICTS = [
    VerdictCase("without pods nothing is known", (), (EndpointState.UNKNOWN, "NoPods")),
    VerdictCase("the first probes are under way", (Track(),), (EndpointState.UNKNOWN, "Probing")),
    VerdictCase("all pods answer", (HEALTHY, HEALTHY), (EndpointState.HEALTHY, "")),
    VerdictCase(
        "one bad pod of two spoils it", (HEALTHY, FAILING), (EndpointState.FAILING, "HTTP500")
    ),
    VerdictCase(
        "a new pod beside a good one changes nothing",
        (HEALTHY, Track()),
        (EndpointState.HEALTHY, ""),
        last=found(EndpointState.HEALTHY),
    ),
    VerdictCase(
        "after a restart of the operator the old verdict holds until there is a new one",
        (Track(),),
        (EndpointState.FAILING, "HTTP500"),
        last=found(EndpointState.FAILING, "HTTP500"),
    ),
    VerdictCase(
        "one good pod does not heal while the other, which may be the bad one, is open",
        (HEALTHY, Track()),
        (EndpointState.FAILING, "HTTP500"),
        last=found(EndpointState.FAILING, "HTTP500"),
    ),
    VerdictCase(
        "where other pods are reached, one that is not is at fault",
        (UNREACHED,),
        (EndpointState.FAILING, "Unreachable"),
    ),
    VerdictCase(
        "where nothing is reached at all, the fault may be the operator's own network",
        (UNREACHED,),
        (EndpointState.UNKNOWN, "NothingReached"),
        last=found(EndpointState.HEALTHY),
        reached_anywhere=False,
    ),
    VerdictCase(
        "pods that come back are probed afresh",
        (Track(),),
        (EndpointState.UNKNOWN, "Probing"),
        last=found(EndpointState.UNKNOWN, "NoPods"),
    ),
]


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case.reason)
def test_verdict(case: VerdictCase) -> None:
    check = Check("query", 8000)
    status = verdict(
        check, case.tracks, reached_anywhere=case.reached_anywhere, last=case.last, now=NOW
    )
    assert (status.state, status.reason) == case.want
    assert status.since is not None


def test_verdict_returns_the_last_one_while_nothing_changes() -> None:
    last = found(EndpointState.FAILING, "HTTP500")
    worse = record(FAILING, HTTP500, threshold=3)
    again = verdict(Check("query", 8000), [worse], reached_anywhere=True, last=last, now=NOW)
    assert again is last, "a failure more must be no news, or each probe would cost a write"


def test_since_tells_when_the_state_changed_not_the_reason() -> None:
    last = found(EndpointState.FAILING, "HTTP500")
    tracks = [play(TIMEOUT, TIMEOUT, TIMEOUT)]
    again = verdict(Check("query", 8000), tracks, reached_anywhere=True, last=last, now=NOW)
    assert (again.reason, again.since) == ("Timeout", last.since)


@given(st.lists(st.sampled_from([GOOD, HTTP500, TIMEOUT, DEAD])), st.integers(1, 5))
def test_a_verdict_needs_a_good_answer_or_as_many_failures_as_the_threshold(
    outcomes: list[Outcome], threshold: int
) -> None:
    track = play(*outcomes, threshold=threshold)
    tail = 0
    for outcome in reversed(outcomes):
        if not outcome.reason:
            break
        tail += 1
    expected = (
        EndpointState.FAILING
        if tail >= threshold
        else EndpointState.HEALTHY
        if any(not outcome.reason for outcome in outcomes) or tail < len(outcomes)
        else None
    )
    if tail < threshold and GOOD not in outcomes:
        expected = None
    assert track.state is expected


@pytest.mark.parametrize(
    ("ip", "refused"),
    [
        ("10.244.0.7", False),
        ("192.168.1.4", False),
        ("fd00::12", False),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("fe80::1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("224.0.0.1", True),
        ("metadata.internal", True),
        ("", True),
    ],
)
def test_addresses_that_are_never_probed(ip: str, refused: bool) -> None:
    assert bool(refusal(ip)) is refused


def test_checks_take_the_first_port_a_named_one_or_a_number() -> None:
    spec = CapibaraServiceSpec.model_validate(
        {
            "image": "x",
            "ports": [{"name": "http", "port": 8000}, {"name": "admin", "port": 9000}],
            "endpoints": [
                {"name": "a"},
                {"name": "b", "port": "admin", "path": "/b", "method": "HEAD"},
                {"name": "c", "port": 7000, "expect": {"statuses": [204], "bodyContains": "ok"}},
            ],
        }
    )
    first, second, third = checks(spec)
    assert (first.port, first.path, first.method, first.period) == (8000, "/", "GET", 10.0)
    assert (second.port, second.path, second.method) == (9000, "/b", "HEAD")
    assert (third.port, third.statuses, third.body_contains) == (7000, frozenset({204}), "ok")


def test_overrides_are_read() -> None:
    text = "shop/backend:8000=127.0.0.1:18000, shop/web:80=[::1]:8080"
    assert parse_overrides(text) == {
        ("shop", "backend", 8000): Address("127.0.0.1", 18000),
        ("shop", "web", 80): Address("::1", 8080),
    }
    assert parse_overrides("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "backend:8000=127.0.0.1:1",
        "shop/backend=127.0.0.1:1",
        "shop/b:x=127.0.0.1:1",
        "shop/b:1=host:1",
    ],
)
def test_overrides_that_cannot_be_read_name_the_part(text: str) -> None:
    with pytest.raises(ValueError, match="must have the form"):
        parse_overrides(f"shop/ok:1=10.0.0.1:1,{text}")
