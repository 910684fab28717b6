"""Joins the reconciler of CapibaraServices to the feeds that wake it."""

from dataclasses import dataclass

from capibara_operator.controllers.services.observe import Stores
from capibara_operator.controllers.services.reconciler import ServiceReconciler
from capibara_operator.runtime.controller import Controller
from capibara_operator.runtime.feed import Feed


@dataclass(frozen=True, slots=True)
class ServiceFeeds:
    """The feeds that services need: their own kind, and children and pods with our label.

    ``fronts`` are the Services in front of the pods.
    """

    services: Feed
    deployments: Feed
    fronts: Feed
    pods: Feed

    def stores(self) -> Stores:
        """The stores that the feeds fill."""
        return Stores(
            services=self.services.store,
            deployments=self.deployments.store,
            fronts=self.fronts.store,
            pods=self.pods.store,
        )

    def wake(self, reconciler: ServiceReconciler, controller: Controller) -> None:
        """Have every event of the feeds put the service that it concerns into the queue."""
        reconciler.bind(controller.enqueue)
        self.services.enqueue = reconciler.saw_service
        self.deployments.enqueue = reconciler.saw_child
        self.fronts.enqueue = reconciler.saw_child
        self.pods.enqueue = reconciler.saw_pod
