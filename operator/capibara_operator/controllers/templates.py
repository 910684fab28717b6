"""Says in the status of each SandboxTemplate whether runs can use it."""

from typing import Final

from pydantic import ValidationError

from capibara_operator.api.provider import SandboxProviderSpec
from capibara_operator.api.template import SandboxTemplateSpec, SandboxTemplateStatus
from capibara_operator.core.conditions import READY, find_condition
from capibara_operator.core.providers.select import view_provider
from capibara_operator.core.templates.status import (
    TemplateProblem,
    check_template,
    template_status,
)
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, Manifest, Recorder
from capibara_operator.ports.resources import SANDBOX_TEMPLATES
from capibara_operator.runtime.controller import Result
from capibara_operator.runtime.store import Store

# Providers change seldom, and their changes are not followed one by one.
_RECHECK_SECONDS: Final = 30.0


class TemplateReconciler:
    """Checks a template against the providers and reports."""

    def __init__(  # noqa: PLR0913 - collaborators, all by keyword
        self,
        *,
        templates: Store,
        providers: Store,
        kube: KubeAPI,
        recorder: Recorder,
        clock: Clock,
        operator_namespace: str,
    ) -> None:
        self._templates = templates
        self._providers = providers
        self._kube = kube
        self._recorder = recorder
        self._clock = clock
        self._namespace = operator_namespace

    async def reconcile(self, key: Key) -> Result:
        """Check one template; writes nothing while the outcome is as before."""
        obj = self._templates.get(key)
        if obj is None:
            return Result()
        spec, problem = self._check(key, obj)
        previous = SandboxTemplateStatus.model_validate(obj.get("status") or {})
        status = template_status(
            previous,
            spec,
            problem,
            generation=obj["metadata"].get("generation", 0),
            now=self._clock.now(),
        )
        if status != previous:
            await self._write(key, status)
            self._announce(obj, previous, status)
        # A template of the shared catalogue depends on nothing but itself.
        return Result(None if key.namespace == self._namespace else _RECHECK_SECONDS)

    def _check(
        self, key: Key, obj: Manifest
    ) -> tuple[SandboxTemplateSpec | None, TemplateProblem | None]:
        try:
            spec = SandboxTemplateSpec.model_validate(obj.get("spec") or {})
        except ValidationError as error:
            fields = ", ".join(
                f"spec.{'.'.join(str(part) for part in item['loc'])}" for item in error.errors()[:3]
            )
            return None, TemplateProblem(
                "InvalidSpec",
                f"This operator cannot read {fields}. Correct the template, or install the CRDs"
                " that belong to the operator.",
            )
        return spec, check_template(
            spec,
            namespace=key.namespace,
            operator_namespace=self._namespace,
            providers=self._provider_specs(),
        )

    def _provider_specs(self) -> tuple[SandboxProviderSpec, ...]:
        views = (view_provider(obj) for obj in self._providers.values())
        return tuple(view.spec for view in views if view is not None)

    async def _write(self, key: Key, status: SandboxTemplateStatus) -> None:
        # Merge patch: an absent field must be said to be absent.
        body = status.model_dump(by_alias=True, mode="json")
        # Not put into the store: the watch's echo is what wakes the runs that wait.
        await self._kube.patch(SANDBOX_TEMPLATES, key, {"status": body}, subresource="status")

    def _announce(
        self, obj: Manifest, previous: SandboxTemplateStatus, status: SandboxTemplateStatus
    ) -> None:
        """Only trouble is worth an Event, and its end."""
        before = find_condition(previous.conditions, READY)
        after = find_condition(status.conditions, READY)
        if after is None or (before.reason if before else "Available") == after.reason:
            return
        self._recorder.event(
            obj, warning=after.status != "True", reason=after.reason, message=after.message
        )
