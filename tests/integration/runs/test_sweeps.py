"""What nobody owns any more goes: sandboxes, and runs whose time is over."""

from __future__ import annotations

import json
import time

import httpx

from support.run_world import World, eventually


def create_sandbox(world: World, **metadata: str) -> str:
    answer = httpx.post(
        f"{world.sandboxd.url}/v2/sandboxes",
        headers={"X-API-KEY": world.sandboxd.api_key},
        json={"templateID": "default", "timeout": 600, "metadata": metadata},
        timeout=30,
    )
    answer.raise_for_status()
    return str(answer.json()["sandboxID"])


def kube_system_uid(world: World) -> str:
    return world.kubectl("get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}")


def test_only_orphans_that_are_proved_ours_are_destroyed(own_world: World) -> None:
    ours = {"operator": "capibara-operator", "cluster": f"{kube_system_uid(own_world)}-x"}
    mine = ours | {"cluster": f"{kube_system_uid(own_world)}-{own_world.name}"}
    gone = {"namespace": own_world.name, "name": "gone", "uid": "0-0", "attempt": "1"}
    own_world.operator.start()
    own_world.run("busy", language="bash", code="sleep 600", activeDeadlineSeconds=900)
    own_world.wait_phase("busy", "Running")
    busy = own_world.status("busy")["sandboxID"]
    uid = own_world.get("sbr", "busy")["metadata"]["uid"]
    rival = {"namespace": own_world.name, "name": "busy", "uid": uid, "attempt": "1"}
    orphan = create_sandbox(own_world, **mine, **gone)
    loser = create_sandbox(own_world, **mine, **rival)
    stranger = create_sandbox(own_world, **ours, **gone)
    try:
        eventually(
            lambda: {each["sandboxID"] for each in own_world.sandboxes()} == {busy, stranger},
            "the orphan and the loser are destroyed, the others live",
            seconds=60,
        )
        assert own_world.status("busy")["phase"] == "Running"
        logged = {
            line["sandboxID"]
            for line in own_world.operator.log_lines()
            if line["msg"] == "destroyed an orphaned sandbox"
        }
        assert logged == {orphan, loser}
        reported = json.loads(own_world.kubectl("get", "sbxp", own_world.name, "-o", "json"))
        assert reported["status"]["reaped"] == 2
    finally:
        own_world.kill_sandbox(stranger)
    own_world.delete("busy")
    own_world.wait_gone("busy")
    assert own_world.sandboxes() == []


def test_a_run_expires_after_its_time_to_live(own_world: World) -> None:
    own_world.operator.start()
    own_world.run("kept", language="bash", code="true")
    own_world.run("short", language="bash", code="true", ttlSecondsAfterFinished=2)
    own_world.wait_closed("kept")
    run = own_world.get("sbr", "short")
    if run:  # it may have expired by now
        run = own_world.wait_closed("short")
        expires = int(run["metadata"]["labels"]["capibara6.dev/expires-at"])
        assert 0 < expires <= time.time() + 3
    own_world.wait_gone("short", seconds=60)
    assert own_world.get("sbr", "kept")
