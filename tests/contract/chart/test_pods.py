"""Pods of the chart: restricted pod security, and settings that the programs know."""

from typing import Any

import pytest

from capibara_operator.settings import Settings
from support.chart import Helm, Manifest, of_kind


@pytest.fixture(scope="module")
def deployments(helm: Helm) -> dict[str, Manifest]:
    return of_kind(helm.template("--set=sandboxd.enabled=true"), "Deployment")


def _restricted(pod: dict[str, Any]) -> list[str]:
    """What the pod security standard "restricted" forbids in a pod."""
    context = pod.get("securityContext", {})
    wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if pod.get(name)]
    if context.get("runAsNonRoot") is not True:
        wrong.append("runAsNonRoot")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.append("seccompProfile")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    wrong += [v["name"] for v in pod.get("volumes", ()) if not (v.keys() - {"name"}) <= allowed]
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            wrong.append("allowPrivilegeEscalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            wrong.append("capabilities")
        if own.get("privileged"):
            wrong.append("privileged")
        wrong += [port["name"] for port in container.get("ports", ()) if "hostPort" in port]
    return wrong


def _pod(deployment: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_operator_is_restricted_and_its_root_is_read_only(
    deployments: dict[str, Manifest],
) -> None:
    pod = _pod(deployments["capibara-operator"])
    assert _restricted(pod) == []
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_sandboxd_is_the_only_exception(deployments: dict[str, Manifest], helm: Helm) -> None:
    exempt = {name for name, item in deployments.items() if _restricted(_pod(item))}
    assert exempt == {"capibara-sandboxd"}
    assert deployments["capibara-sandboxd"]["metadata"]["namespace"] == "capibara-sandboxd"
    namespaces = of_kind(helm.template("--set=sandboxd.enabled=true"), "Namespace")
    enforced = {
        name: item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for name, item in namespaces.items()
    }
    assert enforced == {"capibara-sandboxd": "privileged"}


def test_only_the_operator_gets_a_token(deployments: dict[str, Manifest]) -> None:
    tokens = {
        name: _pod(item)["automountServiceAccountToken"] for name, item in deployments.items()
    }
    assert tokens == {"capibara-operator": True, "capibara-sandboxd": False}


def test_no_pod_gets_service_links(deployments: dict[str, Manifest]) -> None:
    assert {_pod(item)["enableServiceLinks"] for item in deployments.values()} == {False}


def test_there_is_never_a_second_pod(deployments: dict[str, Manifest]) -> None:
    for deployment in deployments.values():
        spec = deployment["spec"]
        assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_every_container_is_probed_and_bounded(deployments: dict[str, Manifest]) -> None:
    paths = {}
    for name, deployment in deployments.items():
        container = _pod(deployment)["containers"][0]
        paths[name] = (
            container["livenessProbe"]["httpGet"]["path"],
            container["readinessProbe"]["httpGet"]["path"],
        )
        assert container["resources"]["limits"]["memory"]
    assert paths == {
        "capibara-operator": ("/healthz", "/readyz"),
        "capibara-sandboxd": ("/health", "/health"),
    }


def test_operator_knows_every_setting_that_it_is_given(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_kind(
        helm.template("--set=watchNamespaces={a,b},operator.metricsPort=9000"), "Deployment"
    )
    pod = _pod(found["capibara-operator"])
    given = {
        item["name"]: item.get("value", "capibara-system") for item in pod["containers"][0]["env"]
    }
    known = {f"CAPIBARA_{name}".upper() for name in Settings.model_fields}
    assert given.keys() <= known
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.operator_namespace == "capibara-system"
    assert settings.watch_namespaces == ("a", "b")
    assert settings.bind_port == 9000
    assert settings.drain_seconds < pod["terminationGracePeriodSeconds"]


def test_upgrade_of_the_chart_alone_restarts_no_pod(deployments: dict[str, Manifest]) -> None:
    for deployment in deployments.values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert not labels.keys() & {"helm.sh/chart", "app.kubernetes.io/version"}


def test_selector_matches_the_pods_and_each_other_nothing(
    deployments: dict[str, Manifest], helm: Helm
) -> None:
    found = helm.template("--set=sandboxd.enabled=true")
    selectors = {
        "capibara-operator": of_kind(found, "Service")["capibara-operator-metrics"],
        "capibara-sandboxd": of_kind(found, "Service")["capibara-sandboxd"],
    }
    for name, service in selectors.items():
        wanted = service["spec"]["selector"].items()
        matched = {
            other
            for other, item in deployments.items()
            if wanted <= item["spec"]["template"]["metadata"]["labels"].items()
        }
        assert matched == {name}


def test_sandboxd_is_reached_by_the_operator_only(helm: Helm) -> None:
    found = helm.template("--set=sandboxd.enabled=true")
    policy = of_kind(found, "NetworkPolicy")["capibara-sandboxd"]["spec"]
    operator = of_kind(found, "Deployment")["capibara-operator"]["spec"]["selector"]["matchLabels"]
    assert policy["egress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == operator
    assert peer["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "capibara-system"
    }
