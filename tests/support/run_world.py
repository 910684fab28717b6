"""A real API server, a real sandboxd and a real operator, seen by a user who runs code."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.operator_process import OperatorProcess
from support.sandboxd_process import SandboxdProcess

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 90.0
API_VERSION = "capibara6.dev/v1alpha1"
ENDS = {"Succeeded", "Failed", "Cancelled"}


def eventually(check: Callable[[], Any], what: str, *, seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer of ``check``; fails after a time."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


@dataclass
class World:
    """One namespace for runs, one for the operator, one provider."""

    cluster: Any
    sandboxd: SandboxdProcess
    name: str
    log_file: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.system = f"{self.name}-system"
        self.operator = OperatorProcess(
            {
                "KUBECONFIG": str(self.cluster.kubeconfig),
                "CAPIBARA_METRICS_BIND_ADDRESS": "127.0.0.1:0",
                "CAPIBARA_WATCH_NAMESPACES": self.name,
                "CAPIBARA_OPERATOR_NAMESPACE": self.system,
                "CAPIBARA_INSTALL_ID": self.name,
                **self.environment,
            },
            self.log_file,
        )

    def set_up(self) -> None:
        self.kubectl("create", "namespace", self.name)
        self.kubectl("create", "namespace", self.system)
        for path in sorted((ROOT / "manifests" / "templates").glob("*.yaml")):
            if path.name != "kustomization.yaml":
                self.kubectl("-n", self.system, "apply", "-f", str(path))
        self.secret(self.system, "sandboxd", apiKey=self.sandboxd.api_key)
        self.provider(self.name, self.sandboxd.url)

    def tear_down(self) -> None:
        """Remove what is ours, also what an operator that died left behind."""
        if self.operator.process is not None and self.operator.process.poll() is None:
            self.operator.kill9()
        for run in self.list_runs():
            if run["metadata"].get("finalizers"):
                name, patch = run["metadata"]["name"], '{"metadata":{"finalizers":null}}'
                self.kubectl("-n", self.name, "patch", "sbr", name, "--type=merge", "-p", patch)
        self.kubectl("delete", "sbxp", "-l", f"world={self.name}", "--wait=false")
        self.kubectl("delete", "namespace", self.name, self.system, "--wait=false")

    def kubectl(self, *args: str, **more: Any) -> str:
        return str(self.cluster.kubectl(*args, **more).stdout)

    def apply(self, *manifests: dict[str, Any]) -> None:
        text = yaml.safe_dump_all(manifests)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)

    def provider(self, name: str, url: str, *, secret: str = "sandboxd", **spec: Any) -> None:
        self.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "SandboxProvider",
                "metadata": {"name": name, "labels": {"world": self.name}},
                "spec": {
                    "apiURL": url,
                    "sandboxURL": url,
                    "credentialsSecretRef": {"name": secret, "key": "apiKey"},
                    "namespaceSelector": {},
                    "sweep": {"intervalSeconds": 5, "graceSeconds": 5},
                    **spec,
                },
            }
        )

    def secret(self, namespace: str, name: str, **data: str) -> None:
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})

    def config_map(self, name: str, **data: str) -> None:
        metadata = {"name": name, "namespace": self.name}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def run(self, name: str, **spec: Any) -> None:
        """Create a run at this world's own provider."""
        self.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "SandboxRun",
                "metadata": {"name": name, "namespace": self.name},
                "spec": {"providerRef": {"name": self.name}, **spec},
            }
        )

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object, or an empty dict when there is none."""
        text = self.kubectl("-n", self.name, "get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else {}

    def list_runs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("-n", self.name, "get", "sbr", "-o", "json"))["items"])

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.get("sbr", name).get("status") or {})

    def wait_phase(self, name: str, *phases: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The status as soon as it has one of these phases."""

        def check() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("phase") in phases else None

        try:
            return dict(eventually(check, f"{name} is {phases}", seconds=seconds))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.operator.log()}") from None

    def wait_closed(self, name: str, *, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The whole run once it is closed: result stored, sandbox destroyed, finalizer gone."""

        def check() -> dict[str, Any] | None:
            run = self.get("sbr", name)
            labels = run.get("metadata", {}).get("labels", {})
            return run if labels.get("capibara6.dev/closed") == "true" else None

        try:
            return dict(eventually(check, f"{name} is closed", seconds=seconds))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.operator.log()}") from None

    def wait_gone(self, name: str, *, seconds: float = 30.0) -> None:
        eventually(lambda: not self.get("sbr", name), f"{name} is gone", seconds=seconds)

    def delete(self, name: str) -> None:
        self.kubectl("-n", self.name, "delete", "sbr", name, "--wait=false")

    def patch(self, name: str, **spec: Any) -> None:
        body = json.dumps({"spec": spec})
        self.kubectl("-n", self.name, "patch", "sbr", name, "--type=merge", "-p", body)

    def sandboxes(self, name: str = "") -> list[dict[str, Any]]:
        """The living sandboxes of this world, or of one run."""
        wanted = {"namespace": self.name} | ({"name": name} if name else {})
        return list(self.sandboxd.sandboxes(wanted))

    def kill_sandbox(self, sandbox_id: str) -> None:
        """Destroy a sandbox behind the operator's back."""
        answer = httpx.delete(
            f"{self.sandboxd.url}/sandboxes/{sandbox_id}",
            headers={"X-API-KEY": self.sandboxd.api_key},
            timeout=30,
        )
        assert answer.status_code in {204, 404}

    def events(self, name: str) -> list[dict[str, Any]]:
        items = json.loads(
            self.kubectl("-n", self.name, "get", "events.events.k8s.io", "-o", "json")
        )["items"]
        return [each for each in items if each["regarding"].get("name") == name]

    def wait_event(self, name: str, reason: str) -> dict[str, Any]:
        def check() -> Any:
            return next((e for e in self.events(name) if e["reason"] == reason), None)

        return dict(eventually(check, f"event {reason} on {name}", seconds=15))

    def creations(self, name: str) -> int:
        """How many sandboxes the operator created for a run, over all its processes."""
        lines = self.operator.log_lines()
        return sum(
            1 for line in lines if line["msg"] == "created a sandbox" and line["name"] == name
        )


@contextlib.contextmanager
def world(cluster: Any, sandboxd: SandboxdProcess, folder: Path) -> Iterator[World]:
    """A world of its own, taken away afterwards."""
    name = f"runs-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    made = World(cluster, sandboxd, name, folder / "operator.log")
    made.set_up()
    try:
        yield made
    finally:
        made.tear_down()
