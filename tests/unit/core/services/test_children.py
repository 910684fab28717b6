"""The children that a service wants, and when they are applied again."""

from collections.abc import Callable
from typing import Any

import pytest

from capibara_operator.core.services.children import (
    HASH_ANNOTATION,
    desired_deployment,
    desired_service,
    restart_to_apply,
)
from capibara_operator.core.services.drift import covers, needs_apply
from capibara_operator.core.services.kubelet import kubelet_probes
from capibara_operator.core.services.model import Applied, Service
from capibara_operator.core.services.ownership import is_leaving, may_take, replicas_to_send

Make = Callable[..., Any]


def container(service: Service) -> dict[str, Any]:
    manifest = desired_deployment(service, restarted_at="")
    (found,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_children_are_named_labelled_and_owned(make_service: Make) -> None:
    service = make_service()
    for child in (desired_deployment(service, restarted_at=""), desired_service(service)):
        metadata = child["metadata"]
        assert (metadata["namespace"], metadata["name"]) == ("shop", "backend")
        assert metadata["labels"] == {
            "capibara6.dev/service": "backend",
            "app.kubernetes.io/name": "backend",
            "app.kubernetes.io/component": "service",
            "app.kubernetes.io/part-of": "capibara6",
            "app.kubernetes.io/managed-by": "capibara-operator",
        }
        (owner,) = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("uid-1", True)


def test_the_service_selects_the_pods(make_service: Make) -> None:
    service = make_service()
    template = desired_deployment(service, restarted_at="")["spec"]["template"]
    front = desired_service(service)["spec"]
    assert front["selector"].items() <= template["metadata"]["labels"].items()
    assert front["ports"] == [{"name": "http", "port": 8000, "protocol": "TCP", "targetPort": 8000}]


def test_the_deployment_never_says_how_many_pods(make_service: Make) -> None:
    manifest = desired_deployment(make_service(replicas=5), restarted_at="")
    assert "replicas" not in manifest["spec"]


def test_pods_meet_the_restricted_pod_security_standard(make_service: Make) -> None:
    service = make_service()
    pod = desired_deployment(service, restarted_at="")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container(service)["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False


def test_the_container_has_what_the_spec_says_and_nothing_empty(make_service: Make) -> None:
    plain = container(make_service())
    assert not {"env", "envFrom", "resources", "command", "args", "imagePullPolicy"} & plain.keys()
    full = container(
        make_service(
            imagePullPolicy="IfNotPresent",
            command=["serve"],
            args=["--fast"],
            env=[
                {"name": "A", "value": ""},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            envFrom=[{"configMapRef": {"name": "c", "optional": True}}],
            resources={"limits": {"memory": "64Mi"}},
        )
    )
    assert full["imagePullPolicy"] == "IfNotPresent"
    assert (full["command"], full["args"]) == (["serve"], ["--fast"])
    assert full["env"] == [
        {"name": "A", "value": ""},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    assert full["envFrom"] == [{"configMapRef": {"name": "c", "optional": True}}]
    assert full["resources"] == {"limits": {"memory": "64Mi"}}


ENDPOINTS = [
    {"name": "health", "path": "/health", "periodSeconds": 7, "timeoutSeconds": 3},
    {"name": "query", "path": "/q", "port": 9000, "failureThreshold": 5},
]


def test_without_named_endpoints_the_first_port_has_to_accept_connections(
    make_service: Make,
) -> None:
    probes = kubelet_probes(make_service(endpoints=ENDPOINTS).spec)
    assert probes.keys() == {"startupProbe", "readinessProbe"}, "no liveness by guess"
    assert probes["readinessProbe"]["tcpSocket"] == {"port": 8000}
    assert probes["startupProbe"]["tcpSocket"] == {"port": 8000}


def test_named_endpoints_become_probes(make_service: Make) -> None:
    service = make_service(
        endpoints=ENDPOINTS,
        startupEndpoint="query",
        livenessEndpoint="health",
        readinessEndpoint="health",
        progressDeadlineSeconds=90,
    )
    probes = kubelet_probes(service.spec)
    assert probes["readinessProbe"] == {
        "httpGet": {"path": "/health", "port": 8000, "scheme": "HTTP"},
        "periodSeconds": 7,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    }
    assert probes["livenessProbe"] == probes["readinessProbe"]
    startup = probes["startupProbe"]
    assert startup["httpGet"] == {"path": "/q", "port": 9000, "scheme": "HTTP"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 90, "the progress deadline"


def test_a_restart_is_applied_until_it_is_handled(
    make_service: Make, make_deployment: Make
) -> None:
    service = make_service(restart="T2", status={"lastHandledRestartAt": "T1"})
    before = make_deployment(service, restarted_at="T1")
    assert restart_to_apply(service, before) == "T2"


def test_a_handled_restart_stays_though_the_annotation_goes(
    make_service: Make, make_deployment: Make
) -> None:
    service = make_service(status={"lastHandledRestartAt": "T1"})
    before = make_deployment(service, restarted_at="T1")
    assert restart_to_apply(service, before) == "T1", "removing it would restart all pods"


def test_a_later_restart_by_somebody_else_is_left_alone(
    make_service: Make, make_deployment: Make
) -> None:
    service = make_service(restart="T1", status={"lastHandledRestartAt": "T1"})
    theirs = make_deployment(service, restarted_at="T9")
    assert restart_to_apply(service, theirs) == ""


def test_a_service_that_was_never_restarted_names_no_restart(
    make_service: Make, make_deployment: Make
) -> None:
    service = make_service()
    assert restart_to_apply(service, make_deployment(service)) == ""
    assert restart_to_apply(service, None) == ""


def test_what_is_there_is_not_applied_again(make_service: Make, make_deployment: Make) -> None:
    service = make_service(endpoints=ENDPOINTS, env=[{"name": "A", "value": "1"}])
    desired = desired_deployment(service, restarted_at="")
    assert needs_apply(desired, None, None)
    assert not needs_apply(desired, make_deployment(service), None)


def test_other_peoples_fields_are_no_drift(make_service: Make, make_deployment: Make) -> None:
    service = make_service(env=[{"name": "A", "value": "1"}])
    observed = make_deployment(service)
    pod = observed["spec"]["template"]["spec"]
    pod["containers"][0]["env"].append({"name": "INJECTED", "value": "yes"})
    pod["containers"].append({"name": "sidecar", "image": "proxy"})
    observed["metadata"]["labels"]["team"] = "blue"
    assert not needs_apply(desired_deployment(service, restarted_at=""), observed, None)


@pytest.mark.parametrize("where", ["image", "label", "owner", "env", "hash"])
def test_drift_of_what_is_ours_is_seen(
    where: str, make_service: Make, make_deployment: Make
) -> None:
    service = make_service(env=[{"name": "A", "value": "1"}])
    observed = make_deployment(service)
    main = observed["spec"]["template"]["spec"]["containers"][0]
    match where:
        case "image":
            main["image"] = "other"
        case "label":
            del observed["metadata"]["labels"]["capibara6.dev/service"]
        case "owner":
            observed["metadata"]["ownerReferences"] = []
        case "env":
            main["env"] = []
        case _:
            observed["metadata"]["annotations"][HASH_ANNOTATION] = "of-an-older-spec"
    assert needs_apply(desired_deployment(service, restarted_at=""), observed, None)


def test_a_quantity_that_the_api_server_writes_otherwise_is_no_drift(
    make_service: Make, make_deployment: Make
) -> None:
    service = make_service(resources={"limits": {"cpu": "1000m"}})
    desired, observed = desired_deployment(service, restarted_at=""), make_deployment(service)
    main = observed["spec"]["template"]["spec"]["containers"][0]
    main["resources"] = {"limits": {"cpu": "1"}}
    applied = Applied.of(observed, desired["metadata"]["annotations"][HASH_ANNOTATION])
    assert not needs_apply(desired, observed, applied)
    observed["metadata"]["generation"] += 1
    assert needs_apply(desired, observed, applied), "somebody changed the spec after our apply"


@pytest.mark.parametrize(
    ("observed", "desired", "want"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        (None, {"a": 1}, False),
        (["x", "y"], ["x"], False),
        (["ALL"], ["ALL"], True),
        ([{"name": "b", "v": 2}, {"name": "a", "v": 1}], [{"name": "a", "v": 1}], True),
        ([{"name": "a", "v": 2}], [{"name": "a", "v": 1}], False),
        ([{"ref": {"n": 1}}], [{"ref": {"n": 1}}, {"ref": {"n": 2}}], False),
    ],
)
def test_covers(observed: Any, desired: Any, want: bool) -> None:
    assert covers(observed, desired) is want


def test_whose_child_it_is(make_service: Make, make_deployment: Make) -> None:
    service = make_service()
    ours = make_deployment(service)
    assert may_take(ours, service)

    foreign = {"metadata": {"name": "backend", "labels": {"app": "x"}}}
    assert not may_take(foreign, service)
    assert not is_leaving(foreign)

    orphan = make_deployment(service)
    orphan["metadata"]["ownerReferences"] = []
    assert may_take(orphan, service), "left behind by us, without an owner"

    earlier = make_deployment(service)
    earlier["metadata"]["ownerReferences"][0]["uid"] = "uid-0"
    assert not may_take(earlier, service)
    assert is_leaving(earlier), "the garbage collector is about to delete it"


def managed(manager: str, operation: str, *, subresource: str = "") -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }
    entry |= {"subresource": subresource} if subresource else {}
    return {"metadata": {"managedFields": [entry]}, "spec": {"replicas": 4}}


@pytest.mark.parametrize(
    ("reason", "deployment", "want"),
    [
        ("a new one starts with what is wanted", None, 2),
        (
            "as long as our apply owns the number it repeats it",
            managed("capibara-operator", "Apply"),
            4,
        ),
        (
            "set through the scale subresource it is no longer the apply's",
            managed("capibara-operator", "Update", subresource="scale"),
            None,
        ),
        ("an autoscaler owns it", managed("hpa", "Update", subresource="scale"), None),
    ],
)
def test_replicas_to_send(reason: str, deployment: Any, want: int | None) -> None:
    assert replicas_to_send(deployment, 2) == want, reason
