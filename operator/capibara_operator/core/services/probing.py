"""What repeated probes of an endpoint mean. Pure: the prober brings outcomes and the time."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from capibara_operator.api.service import (
    CapibaraServiceSpec,
    EndpointState,
    EndpointStatus,
    PortRef,
    ServiceEndpoint,
)

BODY_LIMIT_BYTES: Final = 64 * 1024
"""How much of an answer is read at most."""

NO_PODS: Final = "NoPods"
PROBING: Final = "Probing"
NOTHING_REACHED: Final = "NothingReached"
ADDRESS_REFUSED: Final = "AddressRefused"


@dataclass(frozen=True, slots=True)
class Check:
    """How one endpoint is probed. Times are in seconds; no ``statuses`` means 200 to 399."""

    endpoint: str
    port: int
    path: str = "/"
    method: str = "GET"
    statuses: frozenset[int] = frozenset()
    body_contains: str = ""
    period: float = 10.0
    timeout: float = 2.0
    failure_threshold: int = 3


class Address(NamedTuple):
    """Where a probe connects to: an IP address and a port."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one probe.

    ``reason`` is empty when the answer was as expected. ``reached`` tells whether anything at the
    address took part, if only by refusing the connection.
    """

    reason: str = ""
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Track:
    """What the probes of one endpoint at one address add up to; no ``state`` before a verdict."""

    state: EndpointState | None = None
    reason: str = ""
    failures: int = 0
    reached: bool = False
    candidate: str = ""
    candidate_count: int = 0


def checks(spec: CapibaraServiceSpec) -> tuple[Check, ...]:
    """How the endpoints of a service are probed."""
    return tuple(_check(spec, endpoint) for endpoint in spec.endpoints)


def port_number(spec: CapibaraServiceSpec, port: PortRef | None) -> int:
    """The number of a port that is given by name, by number or not at all (the first)."""
    if isinstance(port, int):
        return port
    named = {each.name: each.port for each in spec.ports}
    return spec.ports[0].port if port is None else named[port]


def refusal(ip: str) -> str:
    """Why an address is never probed; empty when it may be."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "is not an IP address"
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    if address.is_loopback or address.is_link_local:
        return "is a loopback or link-local address"
    if address.is_unspecified or address.is_multicast:
        return "is not the address of a pod"
    return ""


def record(track: Track, outcome: Outcome, *, threshold: int) -> Track:
    """The track after one more probe.

    One good answer makes it healthy; ``threshold`` failures in a row make it failing, and as many
    of another reason replace the reason, so that alternating reasons are no news each time.
    """
    if not outcome.reason:
        return Track(state=EndpointState.HEALTHY, reached=True)
    same = outcome.reason == track.candidate
    after = replace(
        track,
        failures=track.failures + 1,
        reached=outcome.reached,
        candidate=outcome.reason,
        candidate_count=track.candidate_count + 1 if same else 1,
    )
    if after.failures < threshold:
        return after
    if after.state is not EndpointState.FAILING or after.candidate_count >= threshold:
        return replace(after, state=EndpointState.FAILING, reason=outcome.reason)
    return after


def verdict(
    check: Check,
    tracks: Iterable[Track],
    *,
    reached_anywhere: bool,
    last: EndpointStatus | None,
    now: datetime,
) -> EndpointStatus:
    """What is known of an endpoint from its tracks at all addresses.

    Returns ``last`` itself while state and reason stay as they are, so that counting on makes no
    news. Where no probe of any service reaches anything a failure proves nothing: Unknown.
    """
    state, reason, failures = _judge(
        list(tracks),
        reached_anywhere=reached_anywhere,
        last=last,
        threshold=check.failure_threshold,
    )
    if last is not None and (last.state, last.reason) == (state, reason):
        return last
    since = (
        last.since
        if last is not None and last.state is state and last.since
        else now.replace(microsecond=0)
    )
    return EndpointStatus(
        name=check.endpoint,
        state=state,
        reason=reason,
        since=since,
        consecutive_failures=failures,
    )


def _judge(
    tracks: list[Track],
    *,
    reached_anywhere: bool,
    last: EndpointStatus | None,
    threshold: int,
) -> tuple[EndpointState, str, int]:
    if not tracks:
        return EndpointState.UNKNOWN, NO_PODS, 0
    failing = [track for track in tracks if track.state is EndpointState.FAILING]
    proven = [track for track in failing if track.reached or reached_anywhere]
    if proven:
        worst = max(proven, key=lambda track: track.failures)
        return EndpointState.FAILING, worst.reason, min(worst.failures, threshold)
    if failing:
        return EndpointState.UNKNOWN, NOTHING_REACHED, 0
    healthy = sum(track.state is EndpointState.HEALTHY for track in tracks)
    was_failing = last is not None and last.state is EndpointState.FAILING
    # After a failure every pod has to answer once; a new pod beside good ones changes nothing.
    if healthy == len(tracks) or (healthy and not was_failing):
        return EndpointState.HEALTHY, "", 0
    if last is not None and last.reason != NO_PODS:
        return last.state, last.reason, last.consecutive_failures
    return EndpointState.UNKNOWN, PROBING, 0


def parse_overrides(text: str) -> Mapping[tuple[str, str, int], Address]:
    """Read ``namespace/service:port=ip:port`` pairs that are separated by commas.

    They send the probes of a service's port to a fixed address, for an operator that runs outside
    of the pod network. Raises ``ValueError`` that names the part it cannot read.
    """
    found: dict[tuple[str, str, int], Address] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        target, _, address = part.partition("=")
        service, _, port = target.rpartition(":")
        namespace, _, name = service.partition("/")
        ip, _, to_port = address.rpartition(":")
        ip = ip.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(ip)
            valid = bool(namespace and name)
            key = (namespace, name, int(port))
            found[key] = Address(ip, int(to_port))
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(f"{part!r} must have the form NAMESPACE/SERVICE:PORT=IP:PORT")
    return found


def _check(spec: CapibaraServiceSpec, endpoint: ServiceEndpoint) -> Check:
    expect = endpoint.expect
    return Check(
        endpoint=endpoint.name,
        port=port_number(spec, endpoint.port),
        path=endpoint.path,
        method=endpoint.method.value,
        statuses=frozenset(expect.statuses) if expect else frozenset(),
        body_contains=(expect.body_contains or "") if expect else "",
        period=float(endpoint.period_seconds),
        timeout=float(endpoint.timeout_seconds),
        failure_threshold=endpoint.failure_threshold,
    )
