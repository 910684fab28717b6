"""What the chart renders, for several sets of values."""

import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from support.chart import CHART, NAMESPACE, ROOT, Helm, Manifest, of_kind, rules, sources

VALUE_SETS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "sandboxd": ("--set=sandboxd.enabled=true",),
    "sandboxd with a given key": (
        "--set=sandboxd.enabled=true,sandboxd.auth.existingSecret=mine",
        "--set=sandboxd.networkPolicy.allowInternet=true,sandboxd.namespace.create=false",
    ),
    "everything off": (
        "--set=crds.enabled=false,rbac.create=false,networkPolicy.enabled=false",
        "--set=catalogue.templates.enabled=false,catalogue.provider.enabled=false",
        "--set=admission.finalizer.enabled=false,admission.secretReferences.enabled=false",
        "--set=admission.protectedLabels.enabled=false,admission.operatorNamespace.enabled=false",
        "--set=serviceAccount.create=false,serviceAccount.name=mine,operator.enabled=false",
    ),
    "everything set": (
        "--set=sandboxd.enabled=true,watchNamespaces={a,b},admission.trustedUsers={dev}",
        "--set=commonLabels.team=ai,imagePullSecrets[0].name=pull,image.tag=dev",
        "--set=operator.priorityClassName=high,operator.podLabels.a=b,operator.podAnnotations.c=d",
        "--set=operator.nodeSelector.disk=ssd,operator.extraEnv[0].name=CAPIBARA_LOG_FORMAT",
        "--set=operator.extraEnv[0].value=text,operator.tolerations[0].operator=Exists",
        "--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b",
        "--set=sandboxd.tolerations[0].operator=Exists,sandboxd.nodeSelector.disk=ssd",
        '--set-json=operator.affinity={"nodeAffinity":{}}',
        '--set-json=sandboxd.affinity={"nodeAffinity":{}}',
    ),
}  # fmt: skip


@pytest.fixture(params=[*VALUE_SETS.values()], ids=[*VALUE_SETS])
def rendered(request: pytest.FixtureRequest, helm: Helm) -> list[Manifest]:
    return helm.template(*request.param)


@pytest.mark.parametrize("arguments", [*VALUE_SETS.values()], ids=[*VALUE_SETS])
def test_lint_finds_nothing(helm: Helm, arguments: tuple[str, ...]) -> None:
    helm.run("lint", "--strict", str(CHART), *arguments)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("sandboxdd.enabled=true", "'sandboxdd' not allowed"),
        ("operator.resource.limits.cpu=1", "'resource' not allowed"),
        ("image.pulPolicy=Always", "'pulPolicy' not allowed"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.digest=sha256:12", "/image/digest"),
        ("admission.finalizer=false", "/admission/finalizer"),
        ("catalogue.templates.templateIDs.defualt=base", "'defualt' not allowed"),
        ("catalogue.provider.limits.maxConcurrentSandboxes=0", "/maxConcurrentSandboxes"),
        ("catalogue.provider.apiURL=ftp://e2b", "/catalogue/provider/apiURL"),
        ("sandboxd.templates.big.cpu=2", "memoryMiB"),
        ("operator.metricsPort=http", "/operator/metricsPort"),
        ("watchNamespaces={UPPER}", "/watchNamespaces/0"),
    ],
)
def test_wrong_value_is_refused_by_name(helm: Helm, setting: str, complaint: str) -> None:
    done = helm.run("template", str(CHART), f"--set={setting}", check=False)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_schema_knows_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_everything_off_renders_nothing(helm: Helm) -> None:
    assert helm.template(*VALUE_SETS["everything off"]) == []


def test_every_object_says_what_it_belongs_to(rendered: list[Manifest]) -> None:
    for manifest in rendered:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "capibara6", manifest["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm", manifest["metadata"]["name"]


def test_copies_in_the_chart_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "helm" / "sync_chart.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def _without_chart_metadata(manifest: Manifest) -> dict[str, Any]:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {"name": metadata["name"]}}


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("CustomResourceDefinition", "crds"), ("SandboxTemplate", "manifests/templates")],
)
def test_chart_renders_what_the_source_says(helm: Helm, kind: str, folder: str) -> None:
    rendered = of_kind(helm.template(), kind)
    assert len(rendered) == len(sources(folder)) > 0
    for name, source in sources(folder).items():
        assert _without_chart_metadata(rendered[name]) == _without_chart_metadata(source)


def test_local_provider_is_that_of_the_manifests(helm: Helm) -> None:
    limits = "--set=" + ",".join(
        f"catalogue.provider.limits.{name}={value}"
        for name, value in {
            "maxConcurrentSandboxes": 8,
            "createsPerSecond": 5,
            "maxLifetimeSeconds": 3600,
        }.items()
    )
    rendered = of_kind(helm.template("--set=sandboxd.enabled=true", limits), "SandboxProvider")
    source = sources("manifests/providers")["default"]
    assert rendered["default"]["spec"] == source["spec"]
    annotations = rendered["default"]["metadata"]["annotations"]
    assert source["metadata"]["annotations"].items() <= annotations.items()


def test_custom_resources_are_hooks_only_where_the_chart_brings_their_kinds(helm: Helm) -> None:
    def hooks(*arguments: str) -> set[bool]:
        found = helm.template(*arguments)
        items = [*of_kind(found, "SandboxTemplate").values()]
        items += of_kind(found, "SandboxProvider").values()
        assert len(items) == 6
        return {"helm.sh/hook" in item["metadata"].get("annotations", {}) for item in items}

    assert hooks() == {True}
    assert hooks("--set=crds.enabled=false") == {False}
    assert hooks("--set=catalogue.hooks=false") == {False}


def test_names_at_another_provider_replace_the_template_ids(helm: Helm) -> None:
    mapped = "--set=catalogue.templates.templateIDs.default=code-interpreter-v1"
    found = of_kind(helm.template(mapped), "SandboxTemplate")
    assert found["default"]["spec"]["templateID"] == "code-interpreter-v1"
    assert found["visualization"]["spec"]["templateID"] == "visualization"


def test_sandboxd_offers_the_shipped_templates_as_they_are_described(helm: Helm) -> None:
    found = helm.template("--set=sandboxd.enabled=true")
    container = of_kind(found, "Deployment")["capibara-sandboxd"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    env = {item["name"]: item.get("value") for item in container["env"]}
    offered = set(env["CAPIBARA_SANDBOXD_TEMPLATES"].split(";"))
    described = set()
    for template in of_kind(found, "SandboxTemplate").values():
        size = template["spec"]["resources"]
        mebibytes = int(size["memory"][:-2]) * {"Mi": 1, "Gi": 1024}[size["memory"][-2:]]
        described.add(f"{template['spec']['templateID']}:cpu={size['cpu']},memory={mebibytes}")
    assert offered == described


def test_both_namespaces_hold_the_same_key(helm: Helm) -> None:
    secrets = of_kind(helm.template("--set=sandboxd.enabled=true"), "Secret")
    assert secrets.keys() == {
        f"{NAMESPACE}/capibara-sandboxd",
        "capibara-sandboxd/capibara-sandboxd",
    }
    keys = {secret["data"]["apiKey"] for secret in secrets.values()}
    assert len(keys) == 1


def test_given_key_is_not_made_again(helm: Helm) -> None:
    found = helm.template(*VALUE_SETS["sandboxd with a given key"])
    assert of_kind(found, "Secret") == {}
    assert of_kind(found, "Namespace") == {}
    assert of_kind(found, "SandboxProvider")["default"]["spec"]["credentialsSecretRef"] == {
        "name": "mine",
        "key": "apiKey",
    }


def test_unserved_namespaces_get_no_finalizer(helm: Helm) -> None:
    found = of_kind(helm.template("--set=watchNamespaces={a,b}"), "MutatingAdmissionPolicyBinding")
    selector = found["capibara-operator-run-finalizer"]["spec"]["matchResources"]
    assert selector["namespaceSelector"]["matchExpressions"][0]["values"] == ["a", "b"]


def test_versions_agree(helm: Helm) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == project["version"]
    operator = of_kind(helm.template(), "Deployment")["capibara-operator"]
    image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"capibara6/operator:{project['version']}"


def test_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "ab" * 32
    found = helm.template(f"--set=image.digest={digest},image.tag=dev")
    container = of_kind(found, "Deployment")["capibara-operator"]["spec"]["template"]["spec"]
    assert container["containers"][0]["image"] == f"capibara6/operator@{digest}"


def test_kept_definitions_say_so(helm: Helm) -> None:
    policy = "helm.sh/resource-policy"
    kept = of_kind(helm.template(), "CustomResourceDefinition").values()
    assert {item["metadata"]["annotations"].get(policy) for item in kept} == {"keep"}
    removed = of_kind(helm.template("--set=crds.keep=false"), "CustomResourceDefinition").values()
    assert {policy in item["metadata"]["annotations"] for item in removed} == {False}


def test_no_rule_is_a_wildcard(rendered: list[Manifest]) -> None:
    for role, rule in rules(rendered):
        for part in ("apiGroups", "resources", "verbs"):
            assert "*" not in "".join(rule[part]), f"{role}: {rule}"


def test_nobody_may_list_or_watch_secrets(rendered: list[Manifest]) -> None:
    for role, rule in rules(rendered):
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["get"], role


def test_provider_rights_are_never_aggregated(helm: Helm) -> None:
    roles = of_kind(helm.template(), "ClusterRole")
    aggregated = {
        name
        for name, role in roles.items()
        if any("aggregate-to" in label for label in role["metadata"]["labels"])
    }
    assert aggregated == {
        f"capibara-operator-{plural}-{access}"
        for plural in ("capibaraservices", "sandboxruns", "sandboxtemplates")
        for access in ("editor", "viewer")
    }
    assert {f"capibara-operator-sandboxproviders-{x}" for x in ("editor", "viewer")} <= roles.keys()
    for name in aggregated:
        for rule in roles[name]["rules"]:
            assert not any("sandboxproviders" in item for item in rule["resources"])
