"""Brings the cluster up, builds and loads the images, installs the chart."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capibara_devcluster.demo.commands import Cluster, run, stream
from capibara_devcluster.demo.story import Story
from capibara_devcluster.images.build import Image, build
from capibara_devcluster.layout import default_state_dir

OPERATOR_NAMESPACE = "capibara-system"
RELEASE = "capibara"
_HELM_TIMEOUT_SECONDS = 180
_PROVIDER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where the demo finds the project and keeps what it makes."""

    root: Path

    @property
    def state(self) -> Path:
        """Where the clusters are; ``make down`` and ``make demo`` share it."""
        return default_state_dir()

    @property
    def devcluster(self) -> str:
        """The program that belongs to this interpreter."""
        return str(Path(sys.executable).parent / "capibara-devcluster")


def bring_up(checkout: Checkout, story: Story, provider: str) -> dict[str, Any]:
    """Start the cluster, or find it running; return what ``status --json`` says."""
    stream(
        [checkout.devcluster, "up", "--provider", provider, "--helm"], what="starting the cluster"
    )
    status: dict[str, Any] = json.loads(run([checkout.devcluster, "status", "--json"]))
    story.check(bool(status["ready"]), f"cluster {status['name']} ({status['provider']}) is up")
    return status


def build_images(checkout: Checkout, story: Story) -> list[Image]:
    """Build the project's images; unchanged ones cost nothing."""
    with story.console.status("images") as status:
        return build(checkout.root, progress=lambda text: status.update(f"building {text}"))


def load_images(checkout: Checkout, story: Story, images: list[Image]) -> None:
    """Put the images where the cluster's nodes find them."""
    archives = [str(image.archive) for image in images]
    stream([checkout.devcluster, "load-image", *archives], what="loading the images")
    for image in images:
        story.say(f"{image.name}  [dim]{image.id[:12]}[/]")


def changed(checkout: Checkout, images: list[Image]) -> set[str]:
    """Targets whose image is another than when the demo last ran on this cluster."""
    known = checkout.state / "demo" / "images.json"
    before = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    return {image.target for image in images if before.get(image.target, image.id) != image.id}


def remember(checkout: Checkout, images: list[Image]) -> None:
    """Note which images the cluster runs."""
    known = checkout.state / "demo" / "images.json"
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps({image.target: image.id for image in images}), encoding="utf-8")


def install_chart(cluster: Cluster, story: Story, chart: Path, images: dict[str, Image]) -> None:
    """Install or upgrade the operator, with sandboxd, by its Helm chart."""
    values = {
        "image": _image_values(images["operator"]),
        "operator": {"podAnnotations": {"capibara6.dev/image-id": images["operator"].id}},
        "sandboxd": {
            "enabled": True,
            "image": _image_values(images["sandboxd"]),
            "podAnnotations": {"capibara6.dev/image-id": images["sandboxd"].id},
        },
    }
    path = cluster.kubeconfig.parent / "demo-values.json"
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
    with story.console.status("helm upgrade --install, until every part is ready"):
        cluster.helm(
            *("upgrade", "--install", RELEASE, str(chart)),
            *("--namespace", OPERATOR_NAMESPACE, "--create-namespace"),
            *("--values", str(path), "--wait", f"--timeout={_HELM_TIMEOUT_SECONDS}s"),
            timeout_seconds=_HELM_TIMEOUT_SECONDS + 60,
        )
    story.show(
        f"kubectl get deployments -n {OPERATOR_NAMESPACE}",
        cluster.kubectl("get", "deployments", f"--namespace={OPERATOR_NAMESPACE}"),
    )
    deployments = cluster.get("deployments", f"--namespace={OPERATOR_NAMESPACE}")["items"]
    ready = [d for d in deployments if d["status"].get("readyReplicas")]
    story.check(bool(deployments) and ready == deployments, "the operator runs, by its chart")
    story.wait("the provider is tested", lambda: _untested(cluster), seconds=_PROVIDER_SECONDS)
    story.check(True, "provider default is Ready: sandboxd answers with its key")


def _untested(cluster: Cluster) -> str | None:
    """Why the default provider is not Ready; the operator tests it again every few seconds."""
    provider = cluster.get("sandboxproviders", "default")
    conditions = provider.get("status", {}).get("conditions", [])
    ready: dict[str, str] = next((c for c in conditions if c["type"] == "Ready"), {})
    return None if ready.get("status") == "True" else ready.get("message", "not seen yet")


def _image_values(image: Image) -> dict[str, str]:
    repository, _, tag = image.name.rpartition(":")
    return {"repository": repository, "tag": tag}
