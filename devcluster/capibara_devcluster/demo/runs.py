"""The demo's runs: one per template, one plot saved, one failure."""

import base64
from pathlib import Path
from typing import Any

from capibara_devcluster.demo.commands import Cluster
from capibara_devcluster.demo.story import Story

TEMPLATE_OF_RUN = {
    "word-count": "default",
    "sales-summary": "data-analysis",
    "digits-classifier": "machine-learning",
    "disk-check": "quick-script",
    "sales-plot": "visualization",
}
FAILING_RUN = "broken-average"
PLOT_RUN = "sales-plot"
_FINAL_PHASES = frozenset({"Succeeded", "Failed", "Cancelled"})
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RUNS_TIMEOUT_SECONDS = 180


def run_all(cluster: Cluster, story: Story, samples: Path) -> None:
    """Apply the sample runs and wait until each has ended."""
    names = [*TEMPLATE_OF_RUN, FAILING_RUN]
    cluster.kubectl("delete", "sandboxruns", "--ignore-not-found", *names, timeout_seconds=120)
    cluster.kubectl("apply", "--server-side", "-k", str(samples))

    def unfinished() -> str | None:
        phases = {run["metadata"]["name"]: _phase(run) for run in _runs(cluster)}
        waiting = [f"{name} {phases.get(name)}" for name in names]
        left = [text for text in waiting if text.rpartition(" ")[2] not in _FINAL_PHASES]
        return ", ".join(left) or None

    story.wait("all runs have ended", unfinished, seconds=_RUNS_TIMEOUT_SECONDS)
    story.show("kubectl get sandboxruns", cluster.kubectl("get", "sandboxruns"))
    for run in _runs(cluster):
        name = run["metadata"]["name"]
        if name in TEMPLATE_OF_RUN:
            _check_success(story, run, TEMPLATE_OF_RUN[name])


def _check_success(story: Story, run: dict[str, Any], template: str) -> None:
    status = run["status"]
    used = status.get("template", {}).get("name")
    held = (_phase(run), used, status.get("exitCode")) == ("Succeeded", template, 0)
    detail = "" if held else f": {status.get('reason')}: {status.get('message')}"
    story.check(held, f"run {run['metadata']['name']} succeeded on template {template}{detail}")


def show_failure(cluster: Cluster, story: Story) -> None:
    """Show where a user finds the error of a run that failed."""
    run = cluster.get("sandboxruns", FAILING_RUN)
    error = run["status"].get("result", {}).get("error", {})
    story.show(
        f"kubectl get sandboxrun {FAILING_RUN} -o jsonpath='{{.status.result.error}}'",
        f"{error.get('name')}: {error.get('value')}\n{error.get('traceback', '')}",
    )
    seen = (_phase(run), run["status"].get("reason"), error.get("name"))
    story.check(
        seen == ("Failed", "CodeError", "ZeroDivisionError"),
        f"run {FAILING_RUN} failed, and its status holds the error",
    )


def save_plot(cluster: Cluster, story: Story, folder: Path) -> None:
    """Save the plot that a run made as a PNG file."""
    run = cluster.get("sandboxruns", PLOT_RUN)
    plots = [o for o in run["status"].get("outputs", []) if o["mimeType"] == "image/png"]
    if not plots:
        story.check(False, f"run {PLOT_RUN} has a PNG among its outputs")
        return
    ref = plots[0]["ref"]
    data = cluster.get(ref["kind"], ref["name"])["binaryData"][ref["key"]]
    image = base64.b64decode(data)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PLOT_RUN}.png"
    path.write_bytes(image)
    story.check(
        image.startswith(_PNG_SIGNATURE) and len(image) == plots[0]["sizeBytes"],
        f"the plot of run {PLOT_RUN} is a PNG of {len(image):,} bytes: {path}",
    )


def _runs(cluster: Cluster) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = cluster.get("sandboxruns")["items"]
    return items


def _phase(run: dict[str, Any]) -> str:
    return str(run.get("status", {}).get("phase", "Pending"))
