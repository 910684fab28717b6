"""The parts that manage CapibaraServices."""

from collections.abc import Sequence
from dataclasses import dataclass

from capibara_operator.adapters.prober import Prober
from capibara_operator.api.common import SERVICE_LABEL
from capibara_operator.controllers.services.reconciler import ServiceReconciler
from capibara_operator.controllers.services.setup import ServiceFeeds
from capibara_operator.core.services.probing import parse_overrides
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import KubeAPI, Manifest, Recorder
from capibara_operator.ports.resources import CAPIBARA_SERVICES, DEPLOYMENTS, PODS, SERVICES
from capibara_operator.runtime.controller import Controller
from capibara_operator.runtime.feed import Feed
from capibara_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What the composition root starts and stops for services."""

    feeds: Sequence[Feed]
    controller: Controller
    prober: Prober


def build_services(
    *,
    settings: Settings,
    kube: KubeAPI,
    recorder: Recorder,
    clock: Clock,
    namespaces: Sequence[str],
) -> ServiceParts:
    """Make them, and have the feeds wake the controller."""

    def ignore(_: Manifest) -> None:
        return

    feeds = ServiceFeeds(
        services=Feed(CAPIBARA_SERVICES, ignore, namespaces=namespaces),
        deployments=Feed(DEPLOYMENTS, ignore, SERVICE_LABEL, namespaces),
        fronts=Feed(SERVICES, ignore, SERVICE_LABEL, namespaces),
        pods=Feed(PODS, ignore, SERVICE_LABEL, namespaces),
    )
    prober = Prober(clock, overrides=parse_overrides(settings.probe_address_overrides))
    reconciler = ServiceReconciler(
        stores=feeds.stores(), kube=kube, recorder=recorder, clock=clock, prober=prober
    )
    controller = Controller("capibaraservice", reconciler, workers=settings.service_workers)
    feeds.wake(reconciler, controller)
    return ServiceParts(
        feeds=(feeds.services, feeds.deployments, feeds.fronts, feeds.pods),
        controller=controller,
        prober=prober,
    )
