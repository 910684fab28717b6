from __future__ import annotations

from typing import Any

import pytest

from capibara_operator.ports.kube import Key
from capibara_operator.ports.resources import SANDBOX_RUNS
from capibara_operator.runtime.store import Store


def run(version: str, *, uid: str = "u1", name: str = "a", **extra: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": version}
    return {"metadata": metadata | extra}


KEY = Key("ns", "a")


@pytest.mark.parametrize(
    ("known", "new", "news", "reason"),
    [
        (None, run("5"), True, "an object never seen"),
        (run("5"), run("6"), True, "a later state"),
        (run("5"), run("5"), False, "the echo of what is known"),
        (run("9"), run("10"), True, "versions are numbers, not strings"),
        (run("10"), run("9"), False, "a late echo does not undo our own write"),
        (run("5", uid="u1"), run("4", uid="u2"), True, "another object of the same name"),
        (run("abc"), run("abd"), True, "versions that are no numbers only differ"),
        (run("abc"), run("abc"), False, "versions that are no numbers may be equal"),
    ],
)
def test_upsert_tells_news_from_echoes(
    known: dict[str, Any] | None, new: dict[str, Any], news: bool, reason: str
) -> None:
    store = Store(SANDBOX_RUNS)
    if known is not None:
        assert store.upsert(known)
    assert store.upsert(new) is news, reason
    assert store.get(KEY) == (new if news else known)


def test_managed_fields_are_not_kept() -> None:
    store = Store(SANDBOX_RUNS)
    store.upsert(run("1", managedFields=[{"manager": "kubectl"}]))
    assert "managedFields" not in (store.get(KEY) or {})["metadata"]


def test_remove_spares_a_successor_of_the_same_name() -> None:
    store = Store(SANDBOX_RUNS)
    store.upsert(run("7", uid="u2"))
    assert not store.remove(KEY, uid="u1")
    assert KEY in store
    assert store.remove(KEY, uid="u2")
    assert not store.remove(KEY)
    assert len(store) == 0


def test_the_store_may_change_while_it_is_iterated() -> None:
    store = Store(SANDBOX_RUNS)
    for name in "abc":
        store.upsert(run("1", name=name))
    for obj in store.values():
        store.remove(Key("ns", obj["metadata"]["name"]))
    assert list(store.keys()) == []
