"""The resources of the API that the operator reads or writes."""

from typing import Final

from capibara_operator.api.common import GROUP, VERSION
from capibara_operator.ports.kube import Resource

CAPIBARA_SERVICES: Final = Resource(GROUP, VERSION, "capibaraservices", "CapibaraService")
SANDBOX_RUNS: Final = Resource(GROUP, VERSION, "sandboxruns", "SandboxRun")
SANDBOX_TEMPLATES: Final = Resource(GROUP, VERSION, "sandboxtemplates", "SandboxTemplate")
SANDBOX_PROVIDERS: Final = Resource(
    GROUP, VERSION, "sandboxproviders", "SandboxProvider", namespaced=False
)

CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
SERVICES: Final = Resource("", "v1", "services", "Service")

DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")

EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")

OWN_KINDS: Final = (SANDBOX_TEMPLATES, SANDBOX_PROVIDERS, SANDBOX_RUNS, CAPIBARA_SERVICES)
"""The four kinds of our API group, in the order in which they are listed at start."""
