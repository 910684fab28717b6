"""SandboxRuns: from the object to a result, and the sweeps that leave nothing behind."""

from capibara_operator.controllers.runs.catalogue import Catalogue
from capibara_operator.controllers.runs.execute import Apis
from capibara_operator.controllers.runs.reconciler import RunReconciler
from capibara_operator.controllers.runs.sweep import ExpirySweep, OrphanSweep

__all__ = ["Apis", "Catalogue", "ExpirySweep", "OrphanSweep", "RunReconciler"]
