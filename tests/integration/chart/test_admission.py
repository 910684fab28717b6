"""The admission policies on a real API server, with users who have the rights that matter."""

from collections.abc import Callable
from typing import Any

import pytest

from capibara_operator.api.common import CLOSED_LABEL, EXPIRES_AT_LABEL, FINALIZER
from support.chart import NAMESPACE, OPERATOR
from support.chart_cluster import Cluster, run_manifest, until

AUTHOR = "author"
RUN = "sandboxrun.capibara6.dev/run"


@pytest.fixture
def author(installed: Cluster, namespace: str) -> Callable[..., None]:
    """Lets the author create runs, and gives further rights."""

    def grant(name: str, *rights: str) -> None:
        installed.do("create", "role", name, f"--namespace={namespace}", *rights)
        installed.do(
            *("create", "rolebinding", name, f"--namespace={namespace}"),
            *(f"--role={name}", f"--user={AUTHOR}"),
        )

    grant("runs", "--verb=create,get,update,patch", "--resource=sandboxruns.capibara6.dev")
    # RBAC takes a moment to learn of a new binding.
    asked = [("patch", "sandboxruns.capibara6.dev")]
    until(lambda: installed.allowed(AUTHOR, asked, namespace) == [True], "the rights")
    return grant


def _from_secrets(*names: str) -> dict[str, Any]:
    env = [
        {"name": f"E{n}", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}
        for n, name in enumerate(names)
    ]
    return {"env": [*env, {"name": "PLAIN", "value": "x"}]}


def _many(count: int) -> dict[str, Any]:
    return _from_secrets(*(f"secret-{n}" for n in range(count)))


def _file(**source: Any) -> dict[str, Any]:
    return {"files": [{"path": "/data/x", **source}, {"path": "/data/y", "content": "y"}]}


class TestFinalizer:
    def test_is_there_at_the_first_read(self, installed: Cluster, namespace: str) -> None:
        run = installed.create(run_manifest("run", namespace))
        assert run["metadata"]["finalizers"] == [FINALIZER]

    @pytest.mark.parametrize("given", [["example.com/other"], [FINALIZER], ["a.dev/b", FINALIZER]])
    def test_keeps_others_and_is_not_doubled(
        self, installed: Cluster, namespace: str, given: list[str]
    ) -> None:
        run = installed.create(run_manifest("run", namespace, finalizers=given))
        assert run["metadata"]["finalizers"] == list(dict.fromkeys([*given, FINALIZER]))

    def test_can_be_removed(self, installed: Cluster, namespace: str) -> None:
        installed.create(run_manifest("run", namespace))
        patch = '--patch={"metadata":{"finalizers":null}}'
        installed.do("patch", RUN, f"--namespace={namespace}", "--type=merge", patch, user=OPERATOR)
        found = installed.get(RUN, f"--namespace={namespace}")
        assert "finalizers" not in found["metadata"]

    def test_survives_another_server_side_apply(self, installed: Cluster, namespace: str) -> None:
        run = run_manifest("run", namespace)
        for _ in range(2):
            installed.do("apply", "--server-side", "--filename=-", obj=run)
        found = installed.get(RUN, f"--namespace={namespace}")
        assert found["metadata"]["finalizers"] == [FINALIZER]


@pytest.mark.usefixtures("author")
class TestSecretReferences:
    @pytest.mark.parametrize(
        "spec",
        [
            _from_secrets("token"),
            _file(secretKeyRef={"name": "token", "key": "k"}),
            _from_secrets("token") | _file(secretKeyRef={"name": "token", "key": "k"}),
        ],
        ids=["env", "files", "both"],
    )
    def test_are_refused_without_the_right(
        self, installed: Cluster, namespace: str, spec: dict[str, Any]
    ) -> None:
        run = run_manifest("run", namespace, **spec)
        said = installed.refused("create", "--filename=-", obj=run, user=AUTHOR)
        assert "Forbidden" in said
        assert f"author may not get the Secret token in namespace {namespace}" in said
        assert "ask for the right to get it, or remove the reference" in said

    def test_are_allowed_with_the_right_to_each(
        self, installed: Cluster, namespace: str, author: Callable[..., None]
    ) -> None:
        run = run_manifest("run", namespace, **_from_secrets("one", "two"))
        author("one", "--verb=get", "--resource=secrets", "--resource-name=one")
        said = installed.refused("create", "--filename=-", obj=run, user=AUTHOR)
        assert "may not get the Secret two" in said
        assert "may not get the Secret one" not in said
        author("two", "--verb=get", "--resource=secrets", "--resource-name=two")
        assert _allowed(installed, run)

    def test_are_allowed_with_the_right_to_all_however_many(
        self, installed: Cluster, namespace: str, author: Callable[..., None]
    ) -> None:
        author("all", "--verb=get", "--resource=secrets")
        assert _allowed(installed, run_manifest("run", namespace, **_many(63)))

    def test_are_checked_one_by_one_up_to_24(
        self, installed: Cluster, namespace: str, author: Callable[..., None]
    ) -> None:
        names = [f"--resource-name=secret-{n}" for n in range(30)]
        author("named", "--verb=get", "--resource=secrets", *names)
        # Many keys of one Secret count once.
        keys = [
            {"path": f"f{n}", "secretKeyRef": {"name": "secret-1", "key": f"k{n}"}}
            for n in range(30)
        ]
        enough = run_manifest("run", namespace, files=keys, **_many(24))
        assert _allowed(installed, enough)
        run = run_manifest("more", namespace, **_many(25))
        said = installed.refused("create", "--filename=-", obj=run, user=AUTHOR)
        assert "names 25 Secrets, more than the 24 that are checked one by one" in said

    def test_other_rights_are_not_enough(
        self, installed: Cluster, namespace: str, author: Callable[..., None]
    ) -> None:
        author("list", "--verb=list,watch,create", "--resource=secrets")
        author("configmaps", "--verb=get", "--resource=configmaps")
        run = run_manifest("run", namespace, **_from_secrets("token"))
        assert "run-secrets" in installed.refused("create", "--filename=-", obj=run, user=AUTHOR)

    def test_the_right_in_another_namespace_is_not_enough(
        self, installed: Cluster, namespace: str
    ) -> None:
        with installed.namespace() as other:
            flag = f"--namespace={other}"
            installed.do("create", "role", "s", "--verb=get", "--resource=secrets", flag)
            installed.do("create", "rolebinding", "s", "--role=s", f"--user={AUTHOR}", flag)
            run = run_manifest("run", namespace, **_from_secrets("token"))
            said = installed.refused("create", "--filename=-", obj=run, user=AUTHOR)
        assert "run-secrets" in said

    @pytest.mark.parametrize(
        "spec",
        [{}, _from_secrets(), _file(configMapKeyRef={"name": "m", "key": "k"})],
        ids=["nothing", "plain values", "a ConfigMap"],
    )
    def test_runs_without_them_need_no_right(
        self, installed: Cluster, namespace: str, spec: dict[str, Any]
    ) -> None:
        assert installed.create(run_manifest("run", namespace, **spec), user=AUTHOR)

    def test_do_not_bar_their_author_from_cancelling(
        self, installed: Cluster, namespace: str
    ) -> None:
        installed.create(run_manifest("run", namespace, **_from_secrets("token")))
        patch = '--patch={"spec":{"cancel":true}}'
        installed.do("patch", RUN, f"--namespace={namespace}", "--type=merge", patch, user=AUTHOR)


def _allowed(cluster: Cluster, run: dict[str, Any]) -> bool:
    # RBAC takes a moment to learn of a new binding.
    def created() -> bool:
        return cluster.attempt("create", "--filename=-", obj=run, user=AUTHOR).returncode == 0

    until(created, "the run is admitted")
    return True


class TestProtectedLabels:
    @pytest.fixture(autouse=True)
    def run(self, installed: Cluster, namespace: str, author: Callable[..., None]) -> None:
        installed.create(run_manifest("run", namespace))

    @pytest.fixture
    def label(self, installed: Cluster, namespace: str) -> Callable[..., tuple[str, ...]]:
        return lambda *labels: ("label", RUN, f"--namespace={namespace}", "--overwrite", *labels)

    @pytest.mark.parametrize("key", [CLOSED_LABEL, EXPIRES_AT_LABEL])
    @pytest.mark.parametrize("user", [AUTHOR, ""], ids=["author", "administrator"])
    def test_are_refused_at_creation(
        self, installed: Cluster, namespace: str, key: str, user: str
    ) -> None:
        run = run_manifest("other", namespace, labels={key: "1", "team": "ai"})
        said = installed.refused("create", "--filename=-", obj=run, user=user)
        assert f"only the Capibara Operator may set, change or remove: {key};" in said

    @pytest.mark.parametrize("key", [CLOSED_LABEL, EXPIRES_AT_LABEL])
    @pytest.mark.parametrize("user", [AUTHOR, ""], ids=["author", "administrator"])
    def test_are_refused_later(
        self, installed: Cluster, label: Callable[..., tuple[str, ...]], key: str, user: str
    ) -> None:
        assert key in installed.refused(*label(f"{key}=1"), user=user)
        installed.do(*label(f"{key}=1"), user=OPERATOR)
        assert key in installed.refused(*label(f"{key}=2"), user=user)
        assert key in installed.refused(*label(f"{key}-"), user=user)

    def test_are_the_operators_to_set_with_the_finalizer_in_one_patch(
        self, installed: Cluster, namespace: str
    ) -> None:
        patch = (
            '{"metadata":{"finalizers":null,"labels":'
            f'{{"{CLOSED_LABEL}":"true","{EXPIRES_AT_LABEL}":"1800000000"}}}}}}'
        )
        installed.do(
            *("patch", RUN, f"--namespace={namespace}", "--type=merge", f"--patch={patch}"),
            user=OPERATOR,
        )
        found = installed.get(RUN, f"--namespace={namespace}")["metadata"]
        assert found["labels"] == {CLOSED_LABEL: "true", EXPIRES_AT_LABEL: "1800000000"}
        assert "finalizers" not in found

    def test_leave_other_labels_alone(
        self, installed: Cluster, label: Callable[..., tuple[str, ...]]
    ) -> None:
        installed.do(*label("team=ai"), user=AUTHOR)
        installed.do(*label(f"{CLOSED_LABEL}=true"), user=OPERATOR)
        installed.do(*label("team=ml"), user=AUTHOR)

    def test_ttl_may_change_until_the_run_is_closed(
        self, installed: Cluster, namespace: str, label: Callable[..., tuple[str, ...]]
    ) -> None:
        def patch(ttl: str) -> tuple[str, ...]:
            body = f'--patch={{"spec":{{"ttlSecondsAfterFinished":{ttl}}}}}'
            return "patch", RUN, f"--namespace={namespace}", "--type=merge", body

        for ttl in ("60", "90", "null", "120"):
            installed.do(*patch(ttl), user=AUTHOR)
        installed.do(*label(f"{CLOSED_LABEL}=true"), user=OPERATOR)
        for ttl in ("60", "null"):
            said = installed.refused(*patch(ttl), user=AUTHOR)
            assert "spec.ttlSecondsAfterFinished may not change once the run is closed" in said
        installed.do(*patch("120"), user=AUTHOR)

    def test_cancel_may_be_set_until_the_run_is_closed(
        self, installed: Cluster, namespace: str, label: Callable[..., tuple[str, ...]]
    ) -> None:
        def patch(cancel: str) -> tuple[str, ...]:
            body = f'--patch={{"spec":{{"cancel":{cancel}}}}}'
            return "patch", RUN, f"--namespace={namespace}", "--type=merge", body

        installed.do(*label(f"{CLOSED_LABEL}=true"), user=OPERATOR)
        said = installed.refused(*patch("true"), user=AUTHOR)
        assert "spec.cancel may not change once the run is closed; delete the run" in said
        installed.do(*patch("false"), user=AUTHOR)
        installed.do(*label(f"{CLOSED_LABEL}-"), user=OPERATOR)
        installed.do(*patch("true"), user=AUTHOR)
        installed.do(*label(f"{CLOSED_LABEL}=true"), user=OPERATOR)
        found = installed.get(RUN, f"--namespace={namespace}")
        assert (found["spec"]["cancel"], found["metadata"]["generation"]) == (True, 2)


def test_runs_are_refused_in_the_operators_namespace(installed: Cluster) -> None:
    said = installed.refused("create", "--filename=-", obj=run_manifest("run", NAMESPACE))
    assert f"SandboxRuns may not be created in {NAMESPACE}" in said
    assert "create the run in another namespace" in said


def test_the_api_server_finds_no_fault_in_the_policies(installed: Cluster) -> None:
    def checked() -> bool:
        return all("typeChecking" in item.get("status", {}) for item in policies())

    def policies() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = installed.get("validatingadmissionpolicies")["items"]
        return found

    until(checked, "the expressions are type-checked")
    assert len(policies()) == 3
    for policy in policies():
        assert policy["status"]["typeChecking"] == {}, policy["metadata"]["name"]
