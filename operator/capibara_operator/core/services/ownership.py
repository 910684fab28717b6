"""Whose a child is, and who sets the Deployment's number of pods."""

from capibara_operator.api.common import FIELD_MANAGER, OPERATOR_NAME, SERVICE_LABEL
from capibara_operator.core.services.model import Object, Service


def is_owned(obj: Object, service: Service) -> bool:
    """Whether the service controls an object."""
    owner = _controller(obj)
    return owner is not None and owner.get("uid") == service.uid


def may_take(obj: Object, service: Service) -> bool:
    """Whether an object of a child's name is ours, or was left behind by us without an owner."""
    if _controller(obj) is not None:
        return is_owned(obj, service)
    labels = obj["metadata"].get("labels") or {}
    return (
        labels.get(SERVICE_LABEL) == service.name
        and labels.get("app.kubernetes.io/managed-by") == OPERATOR_NAME
    )


def is_leaving(obj: Object) -> bool:
    """Whether an object belongs to an earlier service and is about to be garbage-collected."""
    owner = _controller(obj)
    earlier = owner is not None and owner.get("kind") == "CapibaraService"
    return earlier or "deletionTimestamp" in obj["metadata"]


def replicas_to_send(deployment: Object | None, wanted: int) -> int | None:
    """What an apply has to say about the number of pods; None for nothing.

    A new Deployment starts with ``wanted``. Our apply owns the number from then on until anything
    sets it through the scale subresource; leaving it out before that would reset it to 1.
    """
    if deployment is None:
        return wanted
    for entry in deployment["metadata"].get("managedFields") or []:
        ours = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if ours and not entry.get("subresource") and "f:replicas" in fields:
            return int(deployment["spec"]["replicas"])
    return None


def _controller(obj: Object) -> Object | None:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)
