"""Which programs exist, which Go module pins each, and how to see a program's version."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GOTOOLS: Final = Path(__file__).resolve().parents[1] / "gotools"
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Tool:
    """One program.

    Args:
        name: file name of the program.
        folder: folder below `gotools` whose go.mod pins it.
        package: Go package of its main function.
        pinned_by: module whose version in that go.mod is the program's version.
        version_args: arguments that print the version; empty = only our own build is used.
    """

    name: str
    folder: str
    package: str
    pinned_by: str
    version_args: tuple[str, ...] = ()

    def version(self) -> str:
        """The pinned version without its `v`, such as 1.37.2."""
        text = (GOTOOLS / self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(
            rf"^\s*(?:require )?{re.escape(self.pinned_by)} v(\S+)", text, re.MULTILINE
        )
        if found is None:
            raise LookupError(f"{self.folder}/go.mod does not require {self.pinned_by}")
        return found[1]


def _kubernetes(name: str, *version_args: str) -> Tool:
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Tool(name, "kubernetes", package, "k8s.io/kubernetes", version_args or ("--version",))


def _containerd(name: str) -> Tool:
    module = "github.com/containerd/containerd/v2"
    return Tool(name, "containerd", f"{module}/cmd/{name}", module)


def _cni(kind: str, name: str) -> Tool:
    module = "github.com/containernetworking/plugins"
    return Tool(name, "cni", f"{module}/plugins/{kind}/{name}", module)


_ETCD: Final = "go.etcd.io/etcd/server/v3"
_ALL: Final = (
    Tool("etcd", "etcd", _ETCD, _ETCD, ("--version",)),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kubectl", "version", "--client"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _cni("main", "loopback"),
    _cni("main", "ptp"),
    _cni("ipam", "host-local"),
    _cni("meta", "portmap"),
    Tool("coredns", "coredns", "github.com/coredns/coredns", "github.com/coredns/coredns"),
    Tool("pause", "pause", "capibara6.dev/gotools/pause", ""),
    Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm", "helm.sh/helm/v4", ("version", "--short")),
    Tool("kind", "kind", "sigs.k8s.io/kind", "sigs.k8s.io/kind", ("version", "--quiet")),
    Tool("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok", ("--version",)),
)
TOOLS: Final = {tool.name: tool for tool in _ALL}

CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
SIMULATED_NODES: Final = ("kube-scheduler", "kwok")
NODE: Final = (
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "loopback",
    "ptp",
    "host-local",
    "portmap",
    "coredns",
    "pause",
)


def link_flags(folder: str) -> str:
    """The linker's flags: no debug symbols, and the version stamp that Kubernetes reports."""
    flags = "-s -w"
    if folder != "kubernetes":
        return flags
    version = TOOLS["kube-apiserver"].version()
    major, minor, _ = version.split(".", 2)
    stamp = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    return " ".join(
        [flags, *(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in stamp.items())]
    )


@functools.cache
def digest(folder: str) -> str:
    """A short name for the pinned versions of one folder together with the way they are built."""
    summed = hashlib.sha256(link_flags(folder).encode())
    for path in sorted((GOTOOLS / folder).iterdir()):
        summed.update(path.name.encode() + b"\0" + path.read_bytes())
    return summed.hexdigest()[:16]


def by_folder(names: Sequence[str]) -> dict[str, list[Tool]]:
    """Tools grouped by the folder that pins them, in the order of the catalogue."""
    groups: dict[str, list[Tool]] = {}
    for tool in _ALL:
        if tool.name in names:
            groups.setdefault(tool.folder, []).append(tool)
    return groups
