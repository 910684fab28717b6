"""Tests the connection to each SandboxProvider and says so in its status."""

import asyncio
from typing import Final

from pydantic import ValidationError

from capibara_operator import metrics
from capibara_operator.api.provider import SandboxProviderSpec, SandboxProviderStatus
from capibara_operator.api.run import RunReason
from capibara_operator.controllers.connections import Connections
from capibara_operator.core.conditions import READY, find_condition
from capibara_operator.core.providers.status import ProviderProblem, provider_status
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, Manifest, Recorder
from capibara_operator.ports.resources import SANDBOX_PROVIDERS
from capibara_operator.ports.sandboxes import Fault, SandboxError
from capibara_operator.runtime.controller import Result
from capibara_operator.runtime.store import Store

_TEST_SECONDS: Final = 10.0
_RETEST_READY_SECONDS: Final = 60.0
_RETEST_FAILED_SECONDS: Final = 10.0
# The provider is there and knows the key; that it has no room now is the queue's business.
_ANSWERED: Final = frozenset({Fault.THROTTLED, Fault.CAPACITY})


class ProviderReconciler:
    """Reads the credentials, sends the cheapest authenticated call, reports; then again."""

    def __init__(
        self,
        *,
        providers: Store,
        connections: Connections,
        kube: KubeAPI,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._providers = providers
        self._connections = connections
        self._kube = kube
        self._recorder = recorder
        self._clock = clock

    async def reconcile(self, key: Key) -> Result:
        """Test one provider; writes nothing while the outcome is as before."""
        obj = self._providers.get(key)
        if obj is None:
            self._connections.forget(key.name)
            metrics.forget_provider(key.name)
            return Result()
        problem = await self._test(key.name)
        metrics.set_provider(key.name, problem.reason if problem else "")
        await self._report(key, obj, problem)
        return Result(_RETEST_FAILED_SECONDS if problem else _RETEST_READY_SECONDS)

    async def _test(self, name: str) -> ProviderProblem | None:
        try:
            api = await self._connections.refresh(name)
            async with asyncio.timeout(_TEST_SECONDS):
                await api.ping()
        except TimeoutError:
            return ProviderProblem(
                RunReason.PROVIDER_UNREACHABLE,
                f"No answer within {_TEST_SECONDS:.0f} s. Check spec.apiURL and that the provider"
                " can be reached from the operator's pod; the test is repeated.",
            )
        except SandboxError as error:
            return _problem(error)
        return None

    async def _report(self, key: Key, obj: Manifest, problem: ProviderProblem | None) -> None:
        stored = obj.get("status") or {}
        previous = SandboxProviderStatus.model_validate(stored)
        status = provider_status(
            previous,
            _spec(obj),
            problem,
            generation=obj["metadata"].get("generation", 0),
            now=self._clock.now(),
        )
        if status == previous:
            return
        # Not put into the store: the watch's echo is what wakes the runs that wait.
        await self._kube.patch(
            SANDBOX_PROVIDERS,
            key,
            {"status": status.model_dump(include=_OWNED, by_alias=True, mode="json")},
            subresource="status",
        )
        self._announce(obj, previous, status)

    def _announce(
        self, obj: Manifest, previous: SandboxProviderStatus, status: SandboxProviderStatus
    ) -> None:
        before = find_condition(previous.conditions, READY)
        after = find_condition(status.conditions, READY)
        if after is None or (
            before and (before.status, before.reason) == (after.status, after.reason)
        ):
            return
        self._recorder.event(
            obj, warning=after.status != "True", reason=after.reason, message=after.message
        )


_OWNED: Final = {"observed_generation", "conditions"}


def _spec(obj: Manifest) -> SandboxProviderSpec | None:
    try:
        return SandboxProviderSpec.model_validate(obj.get("spec") or {})
    except ValidationError:
        return None


def _problem(error: SandboxError) -> ProviderProblem | None:
    if error.fault in _ANSWERED:
        return None
    reason = {
        Fault.UNAUTHENTICATED: RunReason.AUTHENTICATION_FAILED,
        Fault.INVALID: RunReason.INVALID_SPEC if not error.status else None,
    }.get(error.fault)
    return ProviderProblem(reason or RunReason.PROVIDER_UNREACHABLE, error.message)
