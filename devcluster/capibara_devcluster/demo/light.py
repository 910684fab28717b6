"""The demo where no kubelet can run: real runs on a real API server, the programs as processes."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from capibara_devcluster.demo import runs
from capibara_devcluster.demo.commands import Cluster, StepError
from capibara_devcluster.demo.install import OPERATOR_NAMESPACE, RELEASE, Checkout
from capibara_devcluster.demo.story import Story

STEPS = 5
NEXT = """
[bold]How to go on[/]   (the operator and sandboxd ended with the demo)
  source .capibara/env                     kubectl and helm for this cluster
  kubectl get sandboxruns -n capibara6     what the runs left behind
  kubectl explain sandboxrun.spec
  make down                                when you are done
"""
SERVICE_ACCOUNT = "capibara-operator"
_SECRET = "e2b"  # noqa: S105 - the name of a Secret
_START_SECONDS = 60
_STOP_SECONDS = 20


def tell(checkout: Checkout, cluster: Cluster, story: Story, missing: Sequence[str]) -> None:
    """The steps after the cluster is up."""
    state = checkout.state / "demo"
    state.mkdir(parents=True, exist_ok=True)
    port, key = _free_port(), secrets.token_urlsafe(24)
    values = _values(port)
    with contextlib.ExitStack() as stack:
        with story.step("sandboxd as a process, and the chart without its workloads"):
            environment = {
                "CAPIBARA_SANDBOXD_API_KEY": key,
                "CAPIBARA_SANDBOXD_TEMPLATES": _templates(checkout.root),
            }
            # Not in our own folder: its path may be too long for the unix sockets in it.
            own = stack.enter_context(tempfile.TemporaryDirectory(prefix="capibara-", dir="/tmp"))
            Path(own).chmod(0o711)
            serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--state-dir", own]
            stack.enter_context(_process("capibara-sandboxd", serve, state, environment))
            _await_health(f"http://127.0.0.1:{port}/health", story, "sandboxd answers")
            _install(cluster, checkout.root, state, values, key)
            samples = checkout.root / "manifests" / "samples"
            story.wait("the new kinds are served", lambda: _unserved(cluster, samples), seconds=60)
            story.check(True, "CRDs, policies, roles, templates and the provider are installed")
        with story.step("The operator as a process, with the rights of its ServiceAccount"):
            metrics = _free_port()
            environment = {
                "KUBECONFIG": str(_kubeconfig(cluster, state)),
                "CAPIBARA_OPERATOR_NAMESPACE": OPERATOR_NAMESPACE,
                "CAPIBARA_METRICS_BIND_ADDRESS": f"127.0.0.1:{metrics}",
            }
            stack.enter_context(_process("capibara-operator", ["run"], state, environment))
            _await_health(f"http://127.0.0.1:{metrics}/readyz", story, "the operator is ready")
            story.check(True, "the operator watches the cluster")
        with story.step("Five runs, one for each template, and one that fails"):
            runs.run_all(cluster, story, checkout.root / "manifests" / "samples")
        with story.step("A plot, and an error"):
            runs.save_plot(cluster, story, state)
            runs.show_failure(cluster, story)
    story.console.print("\n[bold]Not run on this machine[/]")
    for part in (*missing, "the services of capibara6: they need a kubelet"):
        story.say(part)


def _values(port: int) -> dict[str, object]:
    url = f"http://127.0.0.1:{port}"
    return {
        "operator": {"enabled": False},
        "catalogue": {"provider": {"apiURL": url, "sandboxURL": url}},
    }


def _templates(root: Path) -> str:
    """What the chart would tell sandboxd about its templates."""
    values = yaml.safe_load((root / "helm" / "capibara-operator" / "values.yaml").read_text())
    return ";".join(
        f"{name}:cpu={size['cpu']},memory={size['memoryMiB']}"
        for name, size in values["sandboxd"]["templates"].items()
    )


def _install(
    cluster: Cluster, root: Path, state: Path, values: Mapping[str, object], key: str
) -> None:
    for name in (OPERATOR_NAMESPACE, cluster.namespace):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _SECRET, "namespace": OPERATOR_NAMESPACE},
        "stringData": {"apiKey": key},
    }
    system = replace(cluster, namespace=OPERATOR_NAMESPACE)
    system.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(secret)
    )
    path = state / "values.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    chart = root / "helm" / "capibara-operator"
    cluster.helm(
        *("upgrade", "--install", RELEASE, str(chart)),
        *("--namespace", OPERATOR_NAMESPACE, "--values", str(path)),
    )


def _unserved(cluster: Cluster, samples: Path) -> str | None:
    """Why the API server does not take the kinds yet; it needs some seconds after a CRD."""
    try:
        cluster.kubectl("apply", "--server-side", "--dry-run=server", "-k", str(samples))
    except StepError as error:
        return str(error).splitlines()[-1]
    return None


def _kubeconfig(cluster: Cluster, state: Path) -> Path:
    """A kubeconfig that acts as the operator's ServiceAccount."""
    config = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    system = replace(cluster, namespace=OPERATOR_NAMESPACE)
    token = system.kubectl("create", "token", SERVICE_ACCOUNT, "--duration=1h").strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path = state / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def _process(
    program: str, arguments: Sequence[str], state: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """A program of this interpreter that runs until the block ends; its log is in ``state``."""
    path = Path(sys.executable).parent / program
    with (state / f"{program}.log").open("w") as log:
        process = subprocess.Popen(
            [str(path), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_health(url: str, story: Story, what: str) -> None:
    def silent() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                return None
        except (urllib.error.URLError, OSError) as error:
            return str(error)

    story.wait(what, silent, seconds=_START_SECONDS)
