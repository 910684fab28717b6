"""Kopf as a silent feed: what its settings and our handlers must guarantee."""

from __future__ import annotations

import itertools
from typing import Any

import kopf

from capibara_operator.api.common import FINALIZER
from capibara_operator.handlers.settings import GenerationDiffBase, configure
from capibara_operator.handlers.watching import Watches, build_registry
from capibara_operator.ports.resources import PODS, SANDBOX_PROVIDERS, SANDBOX_RUNS
from capibara_operator.runtime.feed import Feed


class FakeSession:
    server = "https://kube"

    def __init__(self) -> None:
        self.watches: dict[str, float] = {}


def feeds() -> list[Feed]:
    return [
        Feed(SANDBOX_RUNS, lambda _: None, "!capibara6.dev/closed"),
        Feed(PODS, lambda _: None),
        Feed(SANDBOX_PROVIDERS, lambda _: None),
    ]


def configured() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    configure(settings, feeds())
    return settings


def test_kopf_writes_nothing_and_never_touches_our_finalizer() -> None:
    settings = configured()
    assert settings.persistence.finalizer != FINALIZER
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.peering.standalone is True


def test_the_label_selectors_filter_at_the_server_for_their_resource_only() -> None:
    selectors = configured().watching.label_selectors
    assert list(selectors.values()) == ["!capibara6.dev/closed"]
    (selector,) = selectors.keys()
    assert (selector.group, selector.version) == ("capibara6.dev", "v1alpha1")


def test_attempts_at_the_api_server_never_end() -> None:
    backoffs = configured().networking.error_backoffs
    first = list(itertools.islice(iter(backoffs), 1_000))  # type: ignore[arg-type]
    assert first[0] < 1
    assert first[-1] == 5
    assert next(iter(backoffs)) == first[0], "each request starts anew"  # type: ignore[arg-type]


def test_the_diff_base_copies_nothing_of_a_body() -> None:
    storage = GenerationDiffBase()
    body: Any = {"metadata": {"generation": 7}, "spec": {"code": "x" * 1_000}}
    assert storage.build(body=body) == {"spec": {"generation": 7}}
    assert storage.fetch(body=body) is None
    patch: Any = {}
    storage.store(body=body, patch=patch, essence={})
    assert patch == {}


def test_the_registry_has_only_event_handlers() -> None:
    registry = build_registry(feeds(), FakeSession())  # type: ignore[arg-type]
    handlers = list(registry._watching.get_all_handlers())
    assert [handler.id for handler in handlers] == [
        "feed-sandboxruns",
        "feed-pods",
        "feed-sandboxproviders",
    ]
    for others in (registry._changing, registry._spawning, registry._indexing):
        assert not list(others.get_all_handlers()), "no finalizers, annotations or daemons"


async def test_an_event_reaches_the_store_of_its_feed() -> None:
    runs, *_ = made = feeds()
    registry = build_registry(made, FakeSession())  # type: ignore[arg-type]
    handler = next(iter(registry._watching.get_all_handlers()))
    obj = {"metadata": {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": "1"}}
    await handler.fn(event={"type": "ADDED", "object": obj}, logger=None)  # type: ignore[misc,call-arg]
    assert len(runs.store) == 1
    await handler.fn(event={"type": "DELETED", "object": obj}, logger=None)  # type: ignore[misc,call-arg]
    assert len(runs.store) == 0


async def test_missing_and_silent_watches_are_named_by_path() -> None:
    session = FakeSession()
    watches = Watches(feeds(), session, namespaces=["a", "b"])  # type: ignore[arg-type]
    runs = "/apis/capibara6.dev/v1alpha1/namespaces/{}/sandboxruns"
    assert len(watches.missing()) == 3
    now = watches._started_at
    session.watches = {
        runs.format("a"): now,
        "/api/v1/namespaces/a/pods": now,
        "/api/v1/namespaces/b/pods": now,
        "/apis/capibara6.dev/v1alpha1/sandboxproviders": now - 10_000,
    }
    assert watches.missing() == ["the watch of sandboxruns is not open yet"]
    session.watches[runs.format("b")] = now
    assert watches.missing() == []
    (line,) = watches.silent()
    assert line.startswith("the watch of /apis/capibara6.dev/v1alpha1/sandboxproviders is silent")
