"""The Deployment and the Service that a CapibaraService wants: only the fields that it owns."""

import hashlib
import json
from typing import Any, Final

from capibara_operator.api.common import (
    API_VERSION,
    GROUP,
    OPERATOR_NAME,
    PART_OF,
    RESTARTED_AT_ANNOTATION,
    SERVICE_LABEL,
)
from capibara_operator.core.services.kubelet import kubelet_probes
from capibara_operator.core.services.model import Object, Service

HASH_ANNOTATION: Final = f"{GROUP}/applied-hash"


def pod_selector(name: str) -> str:
    """The label selector of a service's pods, as text."""
    return f"{SERVICE_LABEL}={name}"


def desired_service(service: Service) -> Object:
    """The Service in front of the pods."""
    ports = [
        {"name": port.name, "port": port.port, "protocol": "TCP", "targetPort": port.port}
        for port in service.spec.ports
    ]
    return _sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(service),
            "spec": {"selector": {SERVICE_LABEL: service.name}, "ports": ports},
        }
    )


def desired_deployment(service: Service, *, restarted_at: str) -> Object:
    """The Deployment without its number of pods, which the scale subresource sets.

    ``restarted_at`` goes into the pod template where it is not empty.
    """
    annotations = {RESTARTED_AT_ANNOTATION: restarted_at} if restarted_at else {}
    return _sealed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(service),
            "spec": {
                "progressDeadlineSeconds": service.spec.progress_deadline_seconds,
                "selector": {"matchLabels": {SERVICE_LABEL: service.name}},
                "template": {
                    "metadata": {"labels": _labels(service)} | _given("annotations", annotations),
                    "spec": _pod_spec(service),
                },
            },
        }
    )


def restart_to_apply(service: Service, deployment: Object | None) -> str:
    """The restart that the pod template has to name; empty for none.

    A request that is not handled yet goes in. A handled one stays only while the Deployment still
    has it: where somebody else restarted the Deployment later, taking theirs away would restart it
    once more.
    """
    handled = service.status.last_handled_restart_at or ""
    if service.restart_requested and service.restart_requested != handled:
        return service.restart_requested
    return handled if restarted_at(deployment) == handled else ""


def restarted_at(deployment: Object | None) -> str:
    """The restart that a Deployment's pod template names; empty for none."""
    template: Object = ((deployment or {}).get("spec") or {}).get("template") or {}
    annotations: Object = (template.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(RESTARTED_AT_ANNOTATION, ""))


def _metadata(service: Service) -> Object:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "labels": _labels(service),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "CapibaraService",
                "name": service.name,
                "uid": service.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _labels(service: Service) -> dict[str, str]:
    return {
        SERVICE_LABEL: service.name,
        "app.kubernetes.io/name": service.name,
        "app.kubernetes.io/component": "service",
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": OPERATOR_NAME,
    }


def _pod_spec(service: Service) -> Object:
    return {
        # Variables such as BACKEND_PORT of every Service would collide with programs' own settings.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service)],
    }


def _container(service: Service) -> Object:
    spec = service.spec
    ports = [
        {"name": port.name, "containerPort": port.port, "protocol": "TCP"} for port in spec.ports
    ]
    return {
        "name": service.name,
        "image": spec.image,
        "ports": ports,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        **_given("imagePullPolicy", spec.image_pull_policy and spec.image_pull_policy.value),
        **_given("command", list(spec.command)),
        **_given("args", list(spec.args)),
        **_given("env", [_wire(each) for each in spec.env]),
        **_given("envFrom", [_wire(each) for each in spec.env_from]),
        **_given("resources", _wire(spec.resources) if spec.resources else None),
        **kubelet_probes(spec),
    }


def _given(name: str, value: object) -> Object:
    return {name: value} if value else {}


def _wire(model: Any) -> Object:
    dumped: Object = model.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {name: value for name, value in dumped.items() if value != {}}


def _sealed(manifest: Object) -> Object:
    """The manifest with the hash of itself in an annotation.

    A field that is no longer wanted shows by the hash only: the API server keeps it until the next
    apply.
    """
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    metadata = manifest["metadata"] | {"annotations": {HASH_ANNOTATION: digest}}
    return manifest | {"metadata": metadata}
