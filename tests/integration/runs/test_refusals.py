"""What cannot run says why, in status and as an Event, and costs no sandbox."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from support.run_world import World, eventually


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that refuses connections and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def all_runs(shared_world: World, closed_port: int) -> None:
    """Every run of this module, created at once."""
    world = shared_world
    world.provider(f"{world.name}-refused", f"http://127.0.0.1:{closed_port}")
    world.secret(world.system, "wrong", apiKey="e2b_0000000000000000000000000000000000000000")
    world.provider(f"{world.name}-denied", world.sandboxd.url, secret="wrong")
    world.provider(f"{world.name}-keyless", world.sandboxd.url, secret="absent")
    world.apply(
        {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "SandboxTemplate",
            "metadata": {"name": "phantom", "namespace": world.system},
            "spec": {"templateID": "not-at-the-provider"},
        }
    )
    world.run("template", code="1", templateRef={"name": "nope"})
    world.run("phantom", code="1", templateRef={"name": "phantom"})
    world.run("provider", code="1", providerRef={"name": f"{world.name}-nope"})
    world.run("unreachable", code="1", providerRef={"name": f"{world.name}-refused"})
    world.run("denied", code="1", providerRef={"name": f"{world.name}-denied"})
    world.run("keyless", code="1", providerRef={"name": f"{world.name}-keyless"})
    world.run("lifetime", code="1", activeDeadlineSeconds=86400)
    world.run(
        "input",
        language="bash",
        code="cat late.txt",
        files=[{"path": "late.txt", "configMapKeyRef": {"name": "late", "key": "k"}}],
    )


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("template", "TemplateNotFound", "No SandboxTemplate 'nope'"),
        ("phantom", "TemplateNotFound", "not-at-the-provider"),
        ("provider", "ProviderNotFound", "No SandboxProvider"),
        ("denied", "AuthenticationFailed", "key"),
        ("keyless", "AuthenticationFailed", "absent"),
        ("lifetime", "InvalidSpec", "activeDeadlineSeconds"),
    ],
)
def test_it_fails_with_a_reason_and_an_event(
    shared_world: World, name: str, reason: str, says: str
) -> None:
    run = shared_world.wait_closed(name, seconds=40)
    status = run["status"]
    assert (status["phase"], status["reason"]) == ("Failed", reason), status
    assert says in status["message"]
    stalled = next(each for each in status["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    event = shared_world.wait_event(name, reason)
    assert (event["type"], event["note"][:40]) == ("Warning", event["note"][:40])
    assert shared_world.sandboxes(name) == []
    assert not run["metadata"].get("finalizers")


def test_an_unreachable_provider_is_waited_for_and_said(shared_world: World) -> None:
    def waits() -> bool:
        return shared_world.status("unreachable").get("reason") == "ProviderUnreachable"

    eventually(waits, "the reason is shown", seconds=30)
    status = shared_world.status("unreachable")
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions["Reconciling"] == "True"
    assert conditions["Ready"] == "False"
    shared_world.wait_event("unreachable", "ProviderUnreachable")
    shared_world.delete("unreachable")
    shared_world.wait_gone("unreachable")


def test_a_run_waits_for_its_inputs(shared_world: World) -> None:
    eventually(
        lambda: "ConfigMap late does not exist" in shared_world.status("input").get("message", ""),
        "the missing object is named",
        seconds=30,
    )
    assert shared_world.sandboxes("input") == []
    shared_world.config_map("late", other="x")
    eventually(
        lambda: "no key k" in shared_world.status("input").get("message", ""),
        "the missing key is named",
        seconds=30,
    )
    shared_world.config_map("late", k="late but there\n")
    status = shared_world.wait_closed("input")["status"]
    assert status["phase"] == "Succeeded"
    assert status["result"]["stdout"]["tail"] == "late but there\n"


@pytest.mark.parametrize(
    "spec",
    [
        {"code": "1", "command": ["true"]},
        {},
        {"code": "x" * (128 * 1024 + 1)},
        {"code": "1", "language": "cobol"},
    ],
    ids=["both", "neither", "too-large", "language"],
)
def test_the_api_server_itself_refuses(shared_world: World, spec: dict[str, object]) -> None:
    with pytest.raises((AssertionError, subprocess.SubprocessError), match="nvalid"):
        shared_world.run("refused", **spec)
