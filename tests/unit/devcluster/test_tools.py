"""Which programs are used, and how a build's progress is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capibara_devcluster import debian
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.tools import catalogue, golang, locate
from capibara_devcluster.tools.build import go_file_name
from capibara_devcluster.tools.progress import is_package
from capibara_devcluster.tools.provide import link


def _program(folder: Path, name: str, says: str, code: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any of the programs."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def test_every_tool_has_a_pinned_version() -> None:
    for tool in catalogue.TOOLS.values():
        if tool.pinned_by:
            major, minor = tool.version().split(".")[:2]
            assert major.isdigit()
            assert minor.isdigit()


def test_groups_name_known_tools() -> None:
    named = {*catalogue.CONTROL_PLANE, *catalogue.NODE, *catalogue.SIMULATED_NODES}
    assert named <= set(catalogue.TOOLS)


def test_kubernetes_is_stamped_with_its_version() -> None:
    version = catalogue.TOOLS["kubelet"].version()
    assert f"gitVersion=v{version}" in catalogue.link_flags("kubernetes")
    assert "gitVersion" not in catalogue.link_flags("etcd")


def test_missing_programs_are_named(machine: Path) -> None:
    assert locate.find(["etcd", "kubectl"]) == ({}, ["etcd", "kubectl"])


def test_right_version_on_path_is_used(machine: Path) -> None:
    kubectl = _program(machine / "path", "kubectl", "Client Version: v1.37.0")
    assert locate.find(["kubectl"]) == ({"kubectl": kubectl}, [])


@pytest.mark.parametrize(
    ("says", "code"),
    [("Client Version: v1.32.4", 0), ("Client Version: v1.37.0", 1), ("nothing", 0)],
)
def test_wrong_or_silent_version_on_path_is_not_used(machine: Path, says: str, code: int) -> None:
    _program(machine / "path", "kubectl", says, code)
    assert locate.find(["kubectl"]) == ({}, ["kubectl"])


def test_kubebuilder_assets_go_before_path(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(machine / "path", "kube-apiserver", "Kubernetes v1.37.1")
    asset = _program(machine / "assets", "kube-apiserver", "Kubernetes v1.37.2")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(machine / "assets"))
    assert locate.find(["kube-apiserver"])[0] == {"kube-apiserver": asset}


def test_built_program_is_found_in_the_cache(machine: Path) -> None:
    built = locate.cached(catalogue.TOOLS["ctr"])
    _program(built.parent, "ctr", "")
    assert locate.find(["ctr"]) == ({"ctr": built}, [])


def test_program_without_a_version_is_taken_from_the_cache_only(machine: Path) -> None:
    _program(machine / "path", "ctr", "2.4.2")
    assert locate.find(["ctr"]) == ({}, ["ctr"])


def test_links_follow_a_program_that_moved(tmp_path: Path) -> None:
    old, new = _program(tmp_path / "old", "etcd", ""), _program(tmp_path / "new", "etcd", "")
    link({"etcd": old}, tmp_path / "bin")
    link({"etcd": new}, tmp_path / "bin")
    assert (tmp_path / "bin" / "etcd").readlink() == new
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["etcd"]


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("k8s.io/apimachinery/pkg/api/errors\n", True),
        ("internal/cpu\n", True),
        ("go: downloading k8s.io/api v0.37.2\n", False),
        ("# k8s.io/kubernetes/cmd/kubelet\n", False),
        ("\n", False),
        ("./main.go:3:1: syntax error\n", False),
    ],
)
def test_only_compiled_packages_count(line: str, counted: bool) -> None:
    assert is_package(line) is counted


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("sigs.k8s.io/kind", "kind"),
        ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
    ],
)
def test_file_name_is_the_one_that_go_gives(package: str, file: str) -> None:
    assert go_file_name(package) == file


@pytest.mark.parametrize(
    ("says", "version"),
    [("go1.26.8", (1, 26)), ("go1.27rc1", (1, 27)), ("devel go1.28-abc", (0, 0)), ("", (0, 0))],
)
def test_go_version_is_read(tmp_path: Path, says: str, version: tuple[int, int]) -> None:
    assert golang.version(_program(tmp_path, "go", says)) == version


def test_missing_package_names_the_exact_command(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(debian, "SYSTEM_PATH", str(machine / "nothing"))
    with pytest.raises(DevclusterError) as raised:
        debian.ensure(["runc", "nft"])
    assert "sudo apt-get install --yes --no-install-recommends nftables runc" in str(raised.value)


def test_present_programs_ask_for_nothing(machine: Path) -> None:
    _program(machine / "path", "runc", "")
    debian.ensure(["runc"])


def test_unknown_packages_are_looked_up_once_the_lists_are_there(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine / "path"
    fake = _program(path, "apt-get", "")
    fake.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {machine}/calls\n'
        f'if [ "$1" = update ]; then : > {machine}/lists; exit; fi\n'
        f"[ -e {machine}/lists ] || exit 100\n"
        f": > {path}/nft; /bin/chmod +x {path}/nft\n"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "SYSTEM_PATH", str(path))
    debian.ensure(["nft"])
    install = "install --yes --no-install-recommends nftables"
    assert (machine / "calls").read_text().splitlines() == [install, "update", install]


def test_refused_installation_says_why_and_what_else_there_is(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _program(machine / "path", "apt-get", "", code=100)
    fake.write_text("#!/bin/sh\necho 'E: no space left' >&2\nexit 100\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "SYSTEM_PATH", str(machine / "nothing"))
    with pytest.raises(DevclusterError) as raised:
        debian.ensure(["nft"])
    assert "E: no space left" in str(raised.value)
    assert "--provider light" in str(raised.value)
