"""Which template and which provider a run gets, from what the API server last said."""

from collections.abc import Mapping
from dataclasses import replace

from capibara_operator.api.run import RunReason, SandboxRunSpec, TemplatePin
from capibara_operator.core.providers.select import (
    ProviderRefused,
    ProviderView,
    select_provider,
    template_allowed,
    view_provider,
)
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import ChosenProvider, ChosenTemplate, Refused
from capibara_operator.core.templates.select import (
    TemplateRefused,
    TemplateView,
    select_template,
    view_template,
)
from capibara_operator.ports.kube import Key, KubeAPI
from capibara_operator.ports.resources import NAMESPACES
from capibara_operator.runtime.store import Store


class Catalogue:
    """The templates and providers, as runs see them."""

    def __init__(
        self, *, kube: KubeAPI, templates: Store, providers: Store, operator_namespace: str
    ) -> None:
        self._kube = kube
        self._templates = templates
        self._providers = providers
        self._operator_namespace = operator_namespace

    async def synced(self) -> None:
        """Wait until all templates and providers that exist are known."""
        await self._templates.synced.wait()
        await self._providers.synced.wait()

    async def choose(self, run: Run) -> tuple[ChosenTemplate | Refused, ChosenProvider | Refused]:
        """Template and provider for a run that may start, goes on, or is to be cleaned up."""
        if run.status.sandbox_id is not None or run.finished or run.deleting_since is not None:
            return self._template_of(run), self._provider_of(run)
        if run.spec is None:
            nothing = Refused(RunReason.INVALID_SPEC, run.invalid)
            return nothing, nothing
        if run.namespace == self._operator_namespace:
            forbidden = Refused(
                RunReason.INVALID_SPEC,
                f"Runs are not allowed in the operator's own namespace {run.namespace!r}. "
                "Create the run in another namespace.",
            )
            return forbidden, forbidden
        template = self._select_template(run, run.spec)
        if isinstance(template, Refused):
            return template, template
        return template, await self._select_provider(run, run.spec, template)

    def _select_template(self, run: Run, spec: SandboxRunSpec) -> ChosenTemplate | Refused:
        found = select_template(
            spec,
            namespace=run.namespace,
            operator_namespace=self._operator_namespace,
            templates=self._template_views(run.namespace),
        )
        if isinstance(found, TemplateRefused):
            return _refusal(found.reason, found.message)
        return replace(_chosen_template(found.template), detection=found.detection)

    async def _select_provider(
        self, run: Run, spec: SandboxRunSpec, template: ChosenTemplate
    ) -> ChosenProvider | Refused:
        views = self._provider_views()
        labels: Mapping[str, str] = {}
        if any(_asks_for_labels(view) for view in views):
            labels = await self._labels(run.namespace)
        found = select_provider(
            spec.provider_ref.name if spec.provider_ref else None,
            namespace=run.namespace,
            namespace_labels=labels,
            providers=views,
        )
        if isinstance(found, ProviderRefused):
            return _refusal(found.reason, found.message)
        forbidden = template_allowed(
            found,
            template.pin.template_id,
            template_namespace=template.pin.namespace,
            operator_namespace=self._operator_namespace,
        )
        if forbidden is not None:
            return _refusal(forbidden.reason, forbidden.message)
        return ChosenProvider(found.name, found.spec)

    def _template_views(self, namespace: str) -> list[TemplateView]:
        places = {namespace, self._operator_namespace}
        found = (
            view_template(obj)
            for obj in self._templates.values()
            if obj["metadata"].get("namespace") in places
        )
        return [view for view in found if view is not None]

    def _provider_views(self) -> list[ProviderView]:
        found = (view_provider(obj) for obj in self._providers.values())
        return [view for view in found if view is not None]

    async def _labels(self, namespace: str) -> Mapping[str, str]:
        found = await self._kube.get(NAMESPACES, Key("", namespace))
        labels = (found or {}).get("metadata", {}).get("labels") or {}
        return dict(labels)

    def _template_of(self, run: Run) -> ChosenTemplate | Refused:
        """The template that the run has, whatever became of it since."""
        pin = run.status.template
        stored = self._templates.get(Key(pin.namespace, pin.name)) if pin else None
        view = view_template(stored) if stored else None
        if view is None:
            return Refused(RunReason.TEMPLATE_NOT_FOUND, "The run's template does not exist.")
        return _chosen_template(view)

    def _provider_of(self, run: Run) -> ChosenProvider | Refused:
        """The provider that the run has, or would have had, ready or not."""
        views = self._provider_views()
        named = run.spec.provider_ref.name if run.spec and run.spec.provider_ref else None
        wanted = run.status.provider or named
        matching = [v for v in views if (v.name == wanted if wanted else v.is_default)]
        if not matching:
            message = f"SandboxProvider {wanted or '(default)'} does not exist."
            return Refused(RunReason.PROVIDER_NOT_FOUND, message)
        view = max(matching, key=lambda each: (each.created, each.name))
        return ChosenProvider(view.name, view.spec)


def _chosen_template(view: TemplateView) -> ChosenTemplate:
    return ChosenTemplate(
        pin=TemplatePin(
            name=view.name,
            namespace=view.namespace,
            template_id=view.spec.template_id,
            timeout_seconds=view.spec.timeout_seconds,
        ),
        env={each.name: each.value for each in view.spec.env},
    )


def _asks_for_labels(view: ProviderView) -> bool:
    selector = view.spec.namespace_selector
    return selector is not None and bool(selector.match_labels or selector.match_expressions)


def _refusal(reason: RunReason, message: str) -> Refused:
    return Refused(reason, message, waits=reason is not RunReason.INVALID_SPEC)
