"""Install, upgrade and uninstall by the real Helm on a real API server."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_operator.api.common import FINALIZER
from support.chart import CHART, NAMESPACE, RELEASE, ROOT, sources
from support.chart_cluster import KINDS, Cluster, run_manifest, until

SHIPPED = {"default", "data-analysis", "machine-learning", "quick-script", "visualization"}
POLICIES = tuple(
    f"{way}admissionpolic{end}"
    for way in ("mutating", "validating")
    for end in ("ies", "ybindings")
)


@pytest.fixture
def release(cluster: Cluster) -> Cluster:
    cluster.install("--set=sandboxd.enabled=true")
    return cluster


def _upgrade(cluster: Cluster, *arguments: str, chart: Path = CHART) -> None:
    cluster.helm.run("upgrade", RELEASE, str(chart), "--namespace", NAMESPACE, *arguments)


def _uids(cluster: Cluster) -> dict[str, str]:
    kinds = ("sandboxtemplates.capibara6.dev", "sandboxproviders.capibara6.dev")
    found = [item for kind in kinds for item in cluster.get(kind, "--all-namespaces")["items"]]
    return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["uid"] for i in found}


def _key(cluster: Cluster, namespace: str) -> str:
    secret = cluster.get("secret", "capibara-sandboxd", f"--namespace={namespace}")
    key: str = secret["data"]["apiKey"]
    return key


def test_install_brings_the_catalogue(release: Cluster) -> None:
    assert _uids(release).keys() == {f"SandboxTemplate/{name}" for name in SHIPPED} | {
        "SandboxProvider/default"
    }
    for name, source in sources("manifests/templates").items():
        template = f"sandboxtemplate.capibara6.dev/{name}"
        spec = release.get(template, f"--namespace={NAMESPACE}")["spec"]
        assert spec.items() >= source["spec"].items()
    provider = release.get("sandboxprovider.capibara6.dev/default")
    assert provider["spec"]["apiURL"] == "http://capibara-sandboxd.capibara-sandboxd.svc:3000"
    assert provider["spec"]["namespaceSelector"] == {}
    annotations = provider["metadata"]["annotations"]
    assert annotations["capibara6.dev/is-default-provider"] == "true"


def test_pods_meet_the_pod_security_of_their_namespaces(release: Cluster) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    release.do("label", "namespace", NAMESPACE, "--overwrite", level)
    namespaces = {"capibara-operator": NAMESPACE, "capibara-sandboxd": "capibara-sandboxd"}
    for name, namespace in namespaces.items():
        deployment = release.get("deployment", name, f"--namespace={namespace}")
        pod = deployment["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": "probe", "namespace": namespace}
        release.do("create", "--dry-run=server", "--filename=-", obj=pod)


def test_upgrade_changes_in_place_and_keeps_the_key(release: Cluster) -> None:
    before, key = _uids(release), _key(release, NAMESPACE)
    limit = "--set=catalogue.provider.limits.maxConcurrentSandboxes=3"
    mapped = "--set=catalogue.templates.templateIDs.default=base"
    _upgrade(release, "--set=sandboxd.enabled=true", limit, mapped)
    assert _uids(release) == before
    assert _key(release, NAMESPACE) == _key(release, "capibara-sandboxd") == key
    provider = release.get("sandboxprovider.capibara6.dev/default")
    assert provider["spec"]["limits"]["maxConcurrentSandboxes"] == 3
    template = release.get("sandboxtemplate.capibara6.dev/default", f"--namespace={NAMESPACE}")
    assert template["spec"]["templateID"] == "base"
    _upgrade(release, "--set=sandboxd.enabled=true")
    provider = release.get("sandboxprovider.capibara6.dev/default")
    assert provider["spec"]["limits"]["maxConcurrentSandboxes"] == 20


def test_upgrade_changes_the_definitions_and_keeps_their_objects(
    release: Cluster, namespace: str, tmp_path: Path
) -> None:
    release.create(run_manifest("old", namespace))
    changed = tmp_path / "chart"
    shutil.copytree(CHART, changed)
    path = changed / "files" / "crds" / "capibara6.dev_sandboxruns.yaml"
    crd: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["later"] = {"type": "boolean"}
    path.write_text(yaml.safe_dump(crd), encoding="utf-8")
    _upgrade(release, "--set=sandboxd.enabled=true", chart=changed)

    def understood() -> bool:
        new = run_manifest("new", namespace, later=True)
        return release.attempt("create", "--filename=-", obj=new).returncode == 0

    until(understood, "the new field is served")
    runs = release.get("sandboxruns.capibara6.dev", f"--namespace={namespace}")["items"]
    assert {run["metadata"]["name"] for run in runs} == {"old", "new"}


def test_uninstall_keeps_what_users_made_and_leaves_nothing_in_the_way(
    release: Cluster, namespace: str
) -> None:
    release.create(run_manifest("run", namespace))
    before = _uids(release)
    release.helm.run("uninstall", RELEASE, "--namespace", NAMESPACE)
    assert _uids(release) == before
    for kind in POLICIES:
        assert release.get(kind)["items"] == []
    for kind in ("clusterroles", "clusterrolebindings"):
        names = [item["metadata"]["name"] for item in release.get(kind)["items"]]
        assert not [name for name in names if "capibara" in name]
    run = ("sandboxrun.capibara6.dev/run", f"--namespace={namespace}")
    assert release.get(*run)["metadata"]["finalizers"] == [FINALIZER]
    assert release.get("sandboxruns.capibara6.dev", f"--namespace={namespace}")["items"]
    _without_operator_a_new_run_is_not_held(release, namespace)
    release.do("wait", "--for=delete", "namespace/capibara-sandboxd", "--timeout=120s")

    release.install("--set=sandboxd.enabled=true")
    assert _uids(release) == before
    assert release.get(*run)


def _without_operator_a_new_run_is_not_held(cluster: Cluster, namespace: str) -> None:
    names = iter(range(1000))

    def unheld() -> bool:
        run = cluster.create(run_manifest(f"late-{next(names)}", namespace))
        return "finalizers" not in run["metadata"]

    until(unheld, "the policy is out of force")


def test_uninstall_without_keep_removes_the_kinds(release: Cluster) -> None:
    release.release_runs()
    _upgrade(release, "--set=sandboxd.enabled=true,crds.keep=false")
    release.helm.run("uninstall", RELEASE, "--namespace", NAMESPACE)
    for kind in KINDS:
        crd = f"crd/{kind}.capibara6.dev"
        release.do("wait", "--for=delete", crd, "--timeout=120s")
    release.do("wait", "--for=delete", "namespace/capibara-sandboxd", "--timeout=120s")


def test_stranded_run_is_released_by_the_documented_command(
    release: Cluster, namespace: str
) -> None:
    release.create(run_manifest("run", namespace))
    run = ("sandboxrun.capibara6.dev/run", f"--namespace={namespace}")
    release.do("delete", *run, "--wait=false")
    assert release.get(*run)["metadata"]["deletionTimestamp"]
    release.release_runs()
    release.do("wait", "--for=delete", *run, "--timeout=60s")


@pytest.mark.parametrize(
    "folder", ["manifests/templates", "manifests/providers", "manifests/samples"]
)
def test_manifests_apply_and_nothing_in_them_is_unknown(
    release: Cluster, namespace: str, folder: str
) -> None:
    apply = ("apply", "--server-side", "--force-conflicts", "--validate=strict")
    flags = [f"--namespace={namespace}"] if folder.endswith("samples") else []
    release.do(*apply, *flags, f"--kustomize={ROOT / folder}")
