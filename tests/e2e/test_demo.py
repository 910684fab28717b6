"""The README's first command, as a user sees it, and what kubectl says afterwards."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from capibara_operator.api.common import quantity_value

pytestmark = [pytest.mark.e2e]
ROOT = Path(__file__).parents[2]


def test_everything_held(demo: Any) -> None:
    assert demo.exit_code == 0, demo.output
    summary = re.search(r"(\d+) of (\d+) checks held", demo.output)
    assert summary, demo.output
    assert summary[1] == summary[2]
    assert "✖" not in demo.output
    assert "How to go on" in demo.output


def test_the_light_demo_shows_real_runs_and_says_what_it_leaves_out(light_demo: Any) -> None:
    assert light_demo.exit_code == 0, light_demo.output
    assert light_demo.output.count("succeeded on template") == 5
    assert "Not run on this machine" in light_demo.output
    assert "kubelet" in light_demo.output


def test_the_plot_is_a_picture_on_disk(demo: Any) -> None:
    image = (demo.state_dir / "demo" / "sales-plot.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.rstrip().endswith(b"IEND\xaeB`\x82")


def test_services_started_in_the_order_of_their_dependencies(demo: Any) -> None:
    def since(name: str, kind: str) -> str:
        status = demo.get("capibaraservice", name)["status"]
        found = next(c for c in status["conditions"] if c["type"] == kind)
        assert found["status"] == "True", found
        return str(found["lastTransitionTime"])

    first = demo.get("deployment", "integrated-server")["metadata"]["creationTimestamp"]
    second = demo.get("deployment", "backend")["metadata"]["creationTimestamp"]
    third = demo.get("deployment", "frontend")["metadata"]["creationTimestamp"]
    assert first < second < third
    assert since("integrated-server", "EndpointsHealthy") <= second
    assert since("backend", "EndpointsHealthy") <= third


def test_every_ended_run_is_closed_and_its_sandbox_gone(demo: Any) -> None:
    for run in demo.get("sandboxruns")["items"]:
        assert run["metadata"]["labels"]["capibara6.dev/closed"] == "true"
        assert "finalizers" not in run["metadata"]
        assert len(run["status"]["attempts"]) == 1
    assert "No resources found" not in demo.kubectl("get", "sandboxtemplates", "-A")


def test_the_template_sets_the_memory_of_the_sandbox(demo: Any) -> None:
    def memory(name: str) -> int:
        text = demo.get("sandboxrun", name)["status"]["resources"]["memory"]
        return int(quantity_value(text)) // 2**20

    assert memory("sales-summary") == 1024
    assert memory("digits-classifier") == 2048
    assert memory("disk-check") == 256


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sandboxrun.spec", "activeDeadlineSeconds"),
        ("capibaraservice.spec.endpoints", "failureThreshold"),
        ("sandboxprovider.spec.limits", "maxConcurrentSandboxes"),
        ("sandboxtemplate.spec", "timeoutSeconds"),
    ],
)
def test_kubectl_explains_the_kinds(demo: Any, path: str, words: str) -> None:
    assert words in demo.kubectl("explain", path)


def test_wait_for_ready_ends_for_a_service_and_for_a_run(demo: Any) -> None:
    waited = demo.kubectl("wait", "--for=condition=Ready", "--timeout=20s", "csvc/backend")
    assert "condition met" in waited
    waited = demo.kubectl("wait", "--for=condition=Succeeded", "--timeout=20s", "sbr/word-count")
    assert "condition met" in waited


def test_a_second_apply_changes_nothing(demo: Any) -> None:
    def versions() -> dict[str, str]:
        items = demo.get("capibaraservices,deployments,services")["items"]
        return {
            f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["generation"]
            if "generation" in i["metadata"]
            else i["metadata"]["resourceVersion"]
            for i in items
        }

    before = versions()
    demo.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests" / "services"))
    assert versions() == before


def test_the_pods_of_the_operator_are_restricted(demo: Any) -> None:
    namespace = "capibara-system"
    pods = json.loads(demo.cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
    assert pods
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
    # The API server judges the same pods by the "restricted" standard.
    enforced = demo.cluster.kubectl(
        *("label", "--dry-run=server", "--overwrite", "namespace", namespace),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    assert "violate" not in enforced


def test_a_watch_shows_a_run_from_start_to_end(demo: Any) -> None:
    kubectl = demo.cluster.root / "bin" / "kubectl"
    watch = subprocess.Popen(
        [
            *(kubectl, f"--kubeconfig={demo.cluster.root}/kubeconfig", "-n", "capibara6"),
            *("get", "sandboxruns", "--watch-only", "--no-headers"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        demo.apply(run("watched", "print('seen')"))
        seen: list[str] = []
        assert watch.stdout
        for line in watch.stdout:
            name, phase, *_ = line.split()
            if name == "watched" and phase not in seen:
                seen.append(phase)
            if phase in {"Succeeded", "Failed"}:
                break
        assert seen[-1] == "Succeeded"
        assert "Running" in seen
    finally:
        watch.kill()
        watch.wait()


def run(name: str, code: str) -> dict[str, Any]:
    return {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "SandboxRun",
        "metadata": {"name": name},
        "spec": {"code": code, "taskType": "QuickScript"},
    }
