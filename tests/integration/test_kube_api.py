"""The client of the API server, and the events recorder, against a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from capibara_operator.adapters import kube_api
from capibara_operator.adapters.events import EventRecorder
from capibara_operator.adapters.kube_api import KubeClient
from capibara_operator.adapters.kube_session import connect
from capibara_operator.ports.clock import SystemClock
from capibara_operator.ports.kube import Key, KubeError, Resource
from capibara_operator.ports.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    SANDBOX_PROVIDERS,
    SANDBOX_RUNS,
    SANDBOX_TEMPLATES,
)


@pytest.fixture
async def client(crds_installed: Any) -> AsyncIterator[KubeClient]:
    session = await connect(kubeconfig=str(crds_installed.kubeconfig))
    client = KubeClient(session)
    yield client
    await client.aclose()
    await session.aclose()


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "labels": {"x": name}},
        "data": data,
    }


def run(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": SANDBOX_RUNS.api_version,
        "kind": SANDBOX_RUNS.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"code": "print(1)"},
    }


async def test_create_get_patch_delete(client: KubeClient, namespace: str) -> None:
    key = Key(namespace, "a")
    assert await client.get(CONFIG_MAPS, key) is None
    created = await client.create(CONFIG_MAPS, config_map(namespace, "a", k="v"))
    with pytest.raises(KubeError) as caught:
        await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    assert caught.value.reason == "AlreadyExists"
    assert not caught.value.conflict
    found = await client.get(CONFIG_MAPS, key)
    assert found is not None
    assert found["metadata"]["uid"] == created["metadata"]["uid"]
    patched = await client.patch(CONFIG_MAPS, key, {"data": {"k": None, "n": "ü"}})
    assert patched is not None
    assert patched["data"] == {"n": "ü"}
    assert patched["metadata"]["managedFields"][-1]["manager"] == "capibara-operator"
    assert await client.delete(CONFIG_MAPS, key, uid="another") is False
    assert await client.delete(CONFIG_MAPS, key, uid=created["metadata"]["uid"]) is True
    assert await client.delete(CONFIG_MAPS, key) is False
    assert await client.patch(CONFIG_MAPS, key, {"data": {}}) is None


async def test_a_conditional_patch_loses_against_a_change(
    client: KubeClient, namespace: str
) -> None:
    created = await client.create(SANDBOX_RUNS, run(namespace, "claimed"))
    key = Key(namespace, "claimed")
    claim = {
        "metadata": {"resourceVersion": created["metadata"]["resourceVersion"]},
        "status": {"phase": "Running"},
    }
    assert await client.patch(SANDBOX_RUNS, key, claim, subresource="status") is not None
    with pytest.raises(KubeError) as caught:
        await client.patch(SANDBOX_RUNS, key, claim, subresource="status")
    assert caught.value.conflict


async def test_apply_owns_its_fields_and_takes_them_by_force(
    client: KubeClient, namespace: str, crds_installed: Any
) -> None:
    await client.apply(CONFIG_MAPS, config_map(namespace, "a", mine="1", gone="1"))
    crds_installed.kubectl(
        "patch", "configmap", "a", f"-n{namespace}", "-p", '{"data": {"mine": "2", "theirs": "1"}}'
    )
    applied = await client.apply(CONFIG_MAPS, config_map(namespace, "a", mine="3"))
    assert applied["data"] == {"mine": "3", "theirs": "1"}
    again = await client.apply(CONFIG_MAPS, config_map(namespace, "a", mine="3"))
    assert again["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]


async def test_lists_are_paged_selected_and_may_be_metadata_only(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_api, "_PAGE_SIZE", 2)
    for name in "abcde":
        await client.create(SANDBOX_RUNS, run(namespace, name))
    runs = await client.list(SANDBOX_RUNS, namespace=namespace)
    assert [found["metadata"]["name"] for found in runs] == list("abcde")
    assert runs[0]["kind"] == "SandboxRun"
    bare = await client.list(SANDBOX_RUNS, namespace=namespace, metadata_only=True)
    assert len(bare) == 5
    assert set(bare[0]) == {"apiVersion", "kind", "metadata"}
    assert bare[0]["metadata"]["resourceVersion"] == runs[0]["metadata"]["resourceVersion"]
    await client.patch(
        SANDBOX_RUNS, Key(namespace, "b"), {"metadata": {"labels": {"capibara6.dev/closed": "1"}}}
    )
    selected = await client.list(
        SANDBOX_RUNS, namespace=namespace, label_selector="!capibara6.dev/closed"
    )
    assert [found["metadata"]["name"] for found in selected] == list("acde")
    one = await client.list(SANDBOX_RUNS, namespace=namespace, field_selector="metadata.name=c")
    assert [found["metadata"]["name"] for found in one] == ["c"]


async def test_cluster_scoped_objects(client: KubeClient, namespace: str) -> None:
    found = await client.get(NAMESPACES, Key("", namespace))
    assert found is not None
    assert await client.get(SANDBOX_PROVIDERS, Key("", "absent")) is None


async def test_errors_carry_the_servers_words(client: KubeClient, namespace: str) -> None:
    with pytest.raises(KubeError) as caught:
        await client.create(SANDBOX_RUNS, run(namespace, "a") | {"spec": {}})
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")
    assert "spec" in caught.value.message
    with pytest.raises(KubeError) as caught:
        await client.list(Resource("capibara6.dev", "v1alpha1", "absents", "Absent"))
    assert caught.value.status == 404
    with pytest.raises(KubeError) as caught:
        await client.create(CONFIG_MAPS, config_map("no-such-namespace", "a"))
    assert "no-such-namespace" in caught.value.message


async def test_nobody_listens(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "_BACKOFFS", (0.01,))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    session = await connect(kubeconfig=str(tmp_path / "config"))
    client = KubeClient(session)
    with pytest.raises(
        KubeError, match=r"0 Unreachable: GET https://127.0.0.1:1/api/v1/"
    ) as caught:
        await client.get(CONFIG_MAPS, Key("ns", "a"))
    assert caught.value.transient
    await client.aclose()
    await session.aclose()


async def test_events_are_seen_by_kubectl(
    client: KubeClient, namespace: str, crds_installed: Any
) -> None:
    obj = await client.create(SANDBOX_RUNS, run(namespace, "noisy"))
    recorder = EventRecorder(client, SystemClock(), instance="capibara-operator-test")
    task = asyncio.create_task(recorder.run())
    recorder.event(obj, warning=True, reason="CodeError", message="ZeroDivisionError: oops")
    assert await recorder.flush(seconds=10)
    for _ in range(3):
        recorder.event(obj, warning=True, reason="CodeError", message="ZeroDivisionError: oops")
    assert await recorder.flush(seconds=10)
    task.cancel()
    described = crds_installed.kubectl("describe", "sandboxrun", "noisy", f"-n{namespace}").stdout
    line = next(text for text in described.splitlines() if "ZeroDivisionError" in text)
    assert "Warning" in line
    assert "CodeError" in line
    assert "capibara6.dev/operator" in line
    events = json.loads(
        crds_installed.kubectl("get", "events.events.k8s.io", f"-n{namespace}", "-o", "json").stdout
    )["items"]
    (event,) = [item for item in events if item["regarding"]["name"] == "noisy"]
    assert event["series"]["count"] == 4
    assert event["action"] == "RunCode"
    assert event["reportingController"] == "capibara6.dev/operator"


async def test_events_of_cluster_scoped_objects_are_in_the_default_namespace(
    client: KubeClient, namespace: str, crds_installed: Any
) -> None:
    obj = {
        "apiVersion": SANDBOX_PROVIDERS.api_version,
        "kind": SANDBOX_PROVIDERS.kind,
        "metadata": {"name": namespace, "uid": f"uid-{namespace}"},
    }
    recorder = EventRecorder(client, SystemClock(), instance="capibara-operator-test")
    task = asyncio.create_task(recorder.run())
    recorder.event(obj, warning=False, reason="Connected", message="It answers.")
    assert await recorder.flush(seconds=10)
    task.cancel()
    found = crds_installed.kubectl(
        "get", "events", "-ndefault", f"--field-selector=involvedObject.name={namespace}", "-oname"
    ).stdout
    assert namespace in found


async def test_a_template_survives_a_round_trip(client: KubeClient, namespace: str) -> None:
    applied = await client.apply(
        SANDBOX_TEMPLATES,
        {
            "apiVersion": SANDBOX_TEMPLATES.api_version,
            "kind": SANDBOX_TEMPLATES.kind,
            "metadata": {"namespace": namespace, "name": "default"},
            "spec": {"templateID": "default"},
        },
    )
    assert applied["status"]["observedGeneration"] == -1
