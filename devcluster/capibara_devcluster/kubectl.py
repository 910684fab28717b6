"""Calls of kubectl with a cluster's own kubeconfig."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from capibara_devcluster.backend import Health
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout

_TIMEOUT_SECONDS: Final = 660
_REQUEST_TIMEOUT: Final = "5s"


def run(layout: Layout, *args: str, stdin: str | None = None) -> str:
    """What kubectl prints; raises with its message when it fails."""
    done = _run(layout.root / "bin" / "kubectl", layout.kubeconfig, args, stdin)
    if done.returncode != 0:
        raise DevclusterError(
            f"kubectl {' '.join(args)} failed: {done.stderr.strip()}",
            hint="`capibara-devcluster status` shows which component is unwell",
        )
    return done.stdout


def _run(
    program: Path, kubeconfig: Path, args: tuple[str, ...], stdin: str | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, f"--kubeconfig={kubeconfig}", *args],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )


def inspect(layout: Layout) -> Health:
    """How the API server and the nodes are, seen from outside."""
    try:
        run(layout, "get", "--raw", "/readyz", f"--request-timeout={_REQUEST_TIMEOUT}")
    except DevclusterError as error:
        return Health({"kube-apiserver": False}, error.what)
    return Health({"kube-apiserver": True, **nodes(layout)})


def nodes(layout: Layout) -> dict[str, bool]:
    """`node NAME` -> whether the node is Ready."""
    shown = run(layout, "get", "nodes", "-o", "json", f"--request-timeout={_REQUEST_TIMEOUT}")
    return {f"node {_name(node)}": _is_ready(node) for node in json.loads(shown)["items"]}


def server_version(layout: Layout) -> str:
    """The API server's version, such as v1.37.2; empty when it does not answer."""
    try:
        shown = run(layout, "version", "-o", "json", f"--request-timeout={_REQUEST_TIMEOUT}")
    except DevclusterError:
        return ""
    version: str = json.loads(shown).get("serverVersion", {}).get("gitVersion", "")
    return version


def _name(node: dict[str, Any]) -> str:
    name: str = node["metadata"]["name"]
    return name


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
