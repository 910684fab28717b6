"""A stand-in for the kubelet, real HTTP servers, and shorthands for the API server.

The control plane runs no nodes, so nothing but these tests says that a pod runs. The pods' servers
listen on loopback and are reached through CAPIBARA_PROBE_ADDRESS_OVERRIDES, the option for an
operator that is outside of the pod network.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kubernetes
import pytest
import yaml

WAIT_SECONDS = 30.0
GROUP = ("capibara6.dev", "v1alpha1")


def eventually(check: Callable[[], Any], what: str, *, seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer of ``check``; fails after a time, with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Api:
    """The API server, seen by a user of one namespace."""

    client: Any
    namespace: str
    tool: Any

    def __post_init__(self) -> None:
        self.core = kubernetes.client.CoreV1Api(self.client)
        self.apps = kubernetes.client.AppsV1Api(self.client)
        self.custom = kubernetes.client.CustomObjectsApi(self.client)

    def apply(self, name: str, **spec: Any) -> None:
        manifest = {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "CapibaraService",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"image": "web:1", "ports": [{"name": "http", "port": 8000}]} | spec,
        }
        self.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(manifest))

    def kubectl(self, *args: str, **more: Any) -> str:
        return str(self.tool.kubectl("-n", self.namespace, *args, **more).stdout)

    def get(self, name: str, kind: str = "capibaraservices.capibara6.dev") -> dict[str, Any]:
        """An object, or an empty dict when there is none."""
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else {}

    def service(self, name: str) -> dict[str, Any]:
        try:
            found = self.custom.get_namespaced_custom_object(
                *GROUP, self.namespace, "capibaraservices", name
            )
        except kubernetes.client.ApiException as error:
            assert error.status == 404
            return {}
        return dict(found)

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.service(name).get("status") or {})

    def condition(self, name: str, type_: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition of the present generation."""
        found = self.service(name)
        for each in (found.get("status") or {}).get("conditions", []):
            if (
                each["type"] == type_
                and each["observedGeneration"] == found["metadata"]["generation"]
            ):
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    def wait(self, name: str, type_: str, status: str, reason: str = "") -> str:
        """Wait for a condition; returns its message."""

        def holds() -> bool:
            now = self.condition(name, type_)
            return now[0] == status and (not reason or now[1] == reason)

        try:
            eventually(holds, f"{name} {type_}={status} {reason}")
        except AssertionError as error:
            status_now = json.dumps(self.status(name), indent=1)
            raise AssertionError(f"{error}; it is {status_now}") from None
        return self.condition(name, type_)[2]

    def deployment(self, name: str) -> Any:
        try:
            return self.apps.read_namespaced_deployment(name, self.namespace)
        except kubernetes.client.ApiException as error:
            assert error.status == 404
            return None

    def pods(self, name: str) -> list[Any]:
        selector = f"capibara6.dev/service={name}"
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def events(self, name: str) -> list[tuple[str, str]]:
        """(type, reason) of the Events about a service."""
        listed = json.loads(self.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
        return [
            (each["type"], each["reason"]) for each in listed if each["regarding"]["name"] == name
        ]


@pytest.fixture
def api(crds_installed: Any, namespace: str) -> Iterator[Api]:
    client = kubernetes.config.new_client_from_config(config_file=str(crds_installed.kubeconfig))
    yield Api(client, namespace, crds_installed)
    client.close()


@dataclass
class Kubelet:
    """Says of each pod that it runs and is ready, or what ``behaviour`` has for its service."""

    api: Api
    behaviour: dict[str, str] = field(default_factory=dict)
    ip: str = "10.99.0.1"

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for pod in self.api.core.list_namespaced_pod(self.api.namespace).items:
                self._serve(pod)
            stop.wait(0.1)

    def _serve(self, pod: Any) -> None:
        name = pod.metadata.labels["capibara6.dev/service"]
        status = _STATUSES[self.behaviour.get(name, "ready")](pod.spec.containers[0])
        ready = pod.status.conditions or []
        as_is = {each.type: each.status for each in ready}.get("Ready") == _ready(status)
        waiting = [each.state.waiting for each in pod.status.container_statuses or []]
        if pod.metadata.deletion_timestamp or (as_is and bool(waiting) == bool(status)):
            return
        if status:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        try:
            self.api.core.patch_namespaced_pod_status(
                pod.metadata.name, self.api.namespace, {"status": status}
            )
        except kubernetes.client.ApiException as error:
            assert error.status in {404, 409}


def _ready(status: dict[str, Any]) -> str:
    found = {each["type"]: each["status"] for each in status.get("conditions", [])}
    return found.get("Ready", "")


def _pod_status(container: Any, *, ready: bool, state: dict[str, Any], **more: Any) -> Any:
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [
            {
                "name": container.name,
                "image": container.image,
                "imageID": "",
                "ready": ready,
                "restartCount": 0,
                "state": state,
                **more,
            }
        ],
    }


_EXITED = {"exitCode": 3, "reason": "Error"}
_STATUSES: dict[str, Callable[[Any], Any]] = {
    "ready": lambda container: _pod_status(container, ready=True, state={"running": {}}),
    "crash": lambda container: _pod_status(
        container,
        ready=False,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
        restartCount=4,
        lastState={"terminated": _EXITED},
    ),
    "no-image": lambda container: _pod_status(
        container, ready=False, state={"waiting": {"reason": "ErrImageNeverPull"}}
    ),
    "pending": lambda _: {},
}


@pytest.fixture
def kubelet(api: Api) -> Iterator[Kubelet]:
    found, stop = Kubelet(api), threading.Event()
    thread = threading.Thread(target=found.run, args=(stop,), daemon=True)
    thread.start()
    yield found
    stop.set()
    thread.join(10)


@dataclass
class Web:
    """An HTTP server on loopback; ``answers`` by path is the status that it sends."""

    port: int
    answers: dict[str, int]
    requests: list[str]


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    """``web({"/health": 200})`` starts a server; a path that is not named gets 404."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: dict[str, int]) -> Web:
        requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(answers.get(self.path, 404))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Web(server.server_address[1], answers, requests)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def operator_for(operator_process: Callable[..., Any], namespace: str) -> Callable[..., Any]:
    """Starts the operator; ``operator_for(backend=web)`` has it probe a server of ours."""

    def start(**webs: Web) -> Any:
        overrides = ",".join(
            f"{namespace}/{name.replace('_', '-')}:8000=127.0.0.1:{web.port}"
            for name, web in webs.items()
        )
        return operator_process(CAPIBARA_PROBE_ADDRESS_OVERRIDES=overrides).start()

    return start
