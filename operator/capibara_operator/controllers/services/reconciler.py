"""Brings one CapibaraService nearer to what it asks for, and says so in its status."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from pydantic import ValidationError

from capibara_operator.api.service import CapibaraServiceStatus
from capibara_operator.controllers.services.dependents import Dependents
from capibara_operator.controllers.services.execute import Executor, NameTakenError
from capibara_operator.controllers.services.observe import Observer, Stores, service_key
from capibara_operator.core.conditions import RECONCILING, STALLED, Finding
from capibara_operator.core.services.model import Note, Plan, Service, parse_status
from capibara_operator.core.services.plan import plan
from capibara_operator.core.services.status import failed_status
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Manifest, Recorder
from capibara_operator.ports.probes import EndpointProber
from capibara_operator.ports.resources import CAPIBARA_SERVICES
from capibara_operator.runtime.controller import Result
from capibara_operator.runtime.store import key_of

_logger = logging.getLogger(__name__)

_MAX_ROUNDS: Final = 4
_UNSETTLED_SECONDS: Final = 1.0
_LEAVING_SECONDS: Final = 2.0
_REFUSED_SECONDS: Final = 300.0
_REFUSED_STATUSES: Final = frozenset({400, 422})


class ServiceReconciler:
    """``runtime.controller.Reconciler`` of CapibaraServices."""

    def __init__(
        self,
        *,
        stores: Stores,
        kube: KubeAPI,
        recorder: Recorder,
        clock: Clock,
        prober: EndpointProber,
    ) -> None:
        self._stores = stores
        self._kube = kube
        self._recorder = recorder
        self._clock = clock
        self._prober = prober
        self._observer = Observer(stores, kube, prober)
        self._executor = Executor(stores, kube)
        self._dependents = Dependents()
        self._enqueue: Callable[[Key], None] = lambda _: None

    def bind(self, enqueue: Callable[[Key], None]) -> None:
        """Use ``enqueue`` to have a service looked at again."""
        self._enqueue = enqueue
        self._prober.listen(enqueue)

    def saw_service(self, obj: Manifest) -> None:
        """A CapibaraService was added, changed or deleted."""
        self._enqueue(key_of(obj))

    def saw_child(self, obj: Manifest) -> None:
        """A Deployment or a Service was added, changed or deleted."""
        key = service_key(obj)
        if key is not None:
            self._enqueue(key)

    def saw_pod(self, obj: Manifest) -> None:
        """A pod was added, changed or deleted."""
        self._observer.saw_pod(obj)
        self.saw_child(obj)

    async def reconcile(self, key: Key) -> Result:
        """Observe, plan, act, and write the status once if it changed."""
        obj = self._stores.services.get(key)
        self._tell_dependents(key, obj)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            self._observer.forget(key)
            self._executor.forget(key)
            return Result()
        try:
            service = Service.parse(obj)
        except ValidationError as error:
            await self._fail(obj, Finding(STALLED, True, "InvalidSpec", _first_error(error)))
            return Result()
        return await self._reconcile(obj, service)

    async def _reconcile(self, obj: Manifest, service: Service) -> Result:
        try:
            final = await self._converge(service)
        except NameTakenError as error:
            await self._fail(obj, _name_taken(error))
            return Result(_LEAVING_SECONDS if error.leaving else _REFUSED_SECONDS)
        except KubeError as error:
            if error.status in _REFUSED_STATUSES:
                await self._fail(obj, Finding(STALLED, True, "InvalidSpec", error.message))
                return Result(_REFUSED_SECONDS)
            if error.status == 403:
                await self._fail(obj, Finding(RECONCILING, True, "Forbidden", error.message))
            raise
        await self._write(obj, final.status, final.notes)
        return Result(_UNSETTLED_SECONDS if final.actions else final.requeue_after)

    async def _converge(self, service: Service) -> Plan:
        """Act until there is nothing left to do; the last plan has the status to write."""
        key = Key(service.namespace, service.name)
        for _ in range(_MAX_ROUNDS):
            seen = await self._observer.observe(service, self._executor.applied(key))
            latest = plan(service, seen, self._clock.now())
            if not latest.actions:
                return latest
            for action in latest.actions:
                await self._executor.execute(service, action)
        _logger.warning("the children do not settle; is something else changing them?")
        return latest

    def _tell_dependents(self, key: Key, obj: Manifest | None) -> None:
        for dependent in self._dependents.concerned(key, obj):
            self._enqueue(dependent)

    async def _fail(self, obj: Manifest, finding: Finding) -> None:
        generation = obj["metadata"].get("generation", 1)
        last = parse_status(obj)
        status = failed_status(last, generation, finding, self._clock.now())
        emitted = [Note(finding.reason, finding.message, warning=True)]
        await self._write(obj, status, emitted)

    async def _write(
        self, obj: Manifest, status: CapibaraServiceStatus, emitted: Sequence[Note]
    ) -> None:
        before, after = obj.get("status") or {}, status.dump()
        if before == after:
            return
        removed = dict.fromkeys(before.keys() - after.keys())
        key = key_of(obj)
        body = {"status": after | removed}
        answer = await self._kube.patch(CAPIBARA_SERVICES, key, body, subresource="status")
        if answer is None:
            return
        self._stores.services.upsert(answer)
        # The watch's echo of our own write is no news, so nobody else would tell them.
        self._tell_dependents(key, answer)
        for note in emitted:
            self._recorder.event(
                obj, warning=note.warning, reason=note.reason, message=note.message
            )


def _name_taken(error: NameTakenError) -> Finding:
    return Finding(RECONCILING if error.leaving else STALLED, True, "NameTaken", str(error))


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"spec.{where}: {first['msg']}"
