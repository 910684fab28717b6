"""What the chart's roles allow, asked of a real API server by impersonation."""

import pytest

from support.chart import NAMESPACE, OPERATOR
from support.chart_cluster import KINDS, Cluster, Question, until

ALLOWED = {
    "list,watch": [*(f"{kind}.capibara6.dev" for kind in KINDS), "pods"],
    "get,list,watch,create,patch": ["deployments.apps", "services"],
    "get,patch,delete": ["sandboxruns.capibara6.dev"],
    "patch": [*(f"{kind}.capibara6.dev/status" for kind in KINDS), "deployments.apps/scale"],
    "update": ["capibaraservices.capibara6.dev/finalizers"],
    "get": ["secrets", "namespaces", "replicasets.apps"],
    "get,create": ["configmaps"],
    "create,patch": ["events.events.k8s.io"],
}
REFUSED = {
    "list,watch,create,update,patch,delete": ["secrets"],
    "list,watch,update,patch,delete": ["configmaps"],
    "update,delete": ["deployments.apps", "services"],
    "create,update": ["sandboxruns.capibara6.dev"],
    "create,update,patch,delete": [
        *("capibaraservices.capibara6.dev", "sandboxproviders.capibara6.dev"),
        *("sandboxtemplates.capibara6.dev", "pods", "namespaces", "serviceaccounts"),
        *("replicasets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch", "nodes"),
        *("roles.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io"),
        *("customresourcedefinitions.apiextensions.k8s.io", "persistentvolumes"),
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
    ],
    "create": ["pods/exec", "pods/portforward", "pods/proxy", "serviceaccounts/token"],
    "impersonate": ["users", "groups", "serviceaccounts"],
}


def _questions(matrix: dict[str, list[str]]) -> list[Question]:
    return [
        (verb, resource)
        for verbs, resources in matrix.items()
        for verb in verbs.split(",")
        for resource in resources
    ]


def _answers(cluster: Cluster, matrix: dict[str, list[str]], scope: str) -> dict[Question, bool]:
    questions = _questions(matrix)
    return dict(zip(questions, cluster.allowed(OPERATOR, questions, scope), strict=True))


def test_operator_may_do_its_work_everywhere(installed: Cluster) -> None:
    answers = _answers(installed, ALLOWED, "")
    assert [question for question, yes in answers.items() if not yes] == []


@pytest.mark.parametrize("scope", ["", NAMESPACE])
def test_operator_may_do_nothing_else(installed: Cluster, scope: str) -> None:
    answers = _answers(installed, REFUSED, scope)
    assert [question for question, yes in answers.items() if yes] == []


def _may(cluster: Cluster, user: str, verb: str, resource: str, namespace: str) -> bool:
    return cluster.allowed(user, [(verb, resource)], namespace) == [True]


@pytest.fixture
def members(installed: Cluster, namespace: str) -> str:
    """Users named after the built-in role that they have in the namespace."""
    for role in ("view", "edit", "admin"):
        installed.do(
            *("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}"),
            f"--namespace={namespace}",
        )
    return namespace


@pytest.mark.parametrize("kind", ["capibaraservices", "sandboxruns", "sandboxtemplates"])
def test_built_in_roles_take_in_the_kinds(installed: Cluster, members: str, kind: str) -> None:
    resource = f"{kind}.capibara6.dev"
    reading = ("get", "list", "watch")
    writing = ("create", "update", "patch", "delete", "deletecollection")

    def rights(user: str) -> set[str]:
        verbs = (*reading, *writing)
        answers = installed.allowed(user, [(verb, resource) for verb in verbs], members)
        return {verb for verb, yes in zip(verbs, answers, strict=True) if yes}

    until(lambda: "watch" in rights("view"), "the aggregation of view")
    until(lambda: "create" in rights("admin"), "the aggregation of admin")
    until(lambda: "create" in rights("edit"), "the aggregation of edit")
    assert rights("view") == {*reading}
    assert rights("edit") == rights("admin") == {*reading, *writing}
    for user in ("view", "edit", "admin"):
        assert not _may(installed, user, "patch", f"{resource}/status", members)


def test_built_in_roles_give_no_right_to_providers(installed: Cluster) -> None:
    binding = ("create", "clusterrolebinding", "chief", "--clusterrole=admin", "--user=chief")
    installed.do(*binding)
    try:
        until(lambda: _may(installed, "chief", "get", "pods", ""), "the role admin")
        for verb in ("get", "create", "update", "patch", "delete"):
            assert not _may(installed, "chief", verb, "sandboxproviders.capibara6.dev", "")
    finally:
        installed.do("delete", "clusterrolebinding", "chief")


def test_provider_rights_are_given_by_name(installed: Cluster) -> None:
    role = "capibara-operator-sandboxproviders-editor"
    installed.do("create", "clusterrolebinding", "pe", f"--clusterrole={role}", "--user=pe")
    try:
        resource = "sandboxproviders.capibara6.dev"
        until(lambda: _may(installed, "pe", "create", resource, ""), "the role")
        assert not _may(installed, "pe", "get", "secrets", NAMESPACE)
    finally:
        installed.do("delete", "clusterrolebinding", "pe")
