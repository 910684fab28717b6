"""Chooses the template of a run: by reference, by task type, or by what the code looks like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from capibara_operator.api.common import TaskType
from capibara_operator.api.run import Detection, RunReason, SandboxRunSpec
from capibara_operator.api.template import SandboxTemplateSpec, SandboxTemplateStatus
from capibara_operator.core.conditions import READY, find_condition, is_true
from capibara_operator.core.runs.detect import Hints, Script, detect_task, matched_hint, script_of


@dataclass(frozen=True, slots=True)
class TemplateView:
    """A SandboxTemplate as it was last seen. ``ready``: for the generation that was seen."""

    namespace: str
    name: str
    spec: SandboxTemplateSpec
    ready: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class TemplateChosen:
    """The template that the run gets, and what the run was found to be about."""

    template: TemplateView
    detection: Detection


@dataclass(frozen=True, slots=True)
class TemplateRefused:
    """No template: TemplateNotFound, or TemplateNotReady, which passes by itself."""

    reason: RunReason
    message: str
    detection: Detection


def view_template(obj: Mapping[str, Any]) -> TemplateView | None:
    """A SandboxTemplate manifest as a view; None when its spec is not one of ours."""
    metadata, stored = obj["metadata"], obj.get("status") or {}
    try:
        spec = SandboxTemplateSpec.model_validate(obj.get("spec") or {})
        status = SandboxTemplateStatus.model_validate(stored)
    except ValidationError:
        return None
    current = status.observed_generation == metadata.get("generation", 0)
    ready = find_condition(status.conditions, READY)
    return TemplateView(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        spec=spec,
        ready=current and is_true(status.conditions, READY),
        message=ready.message if current and ready else "it has not been checked yet",
    )


def select_template(
    spec: SandboxRunSpec,
    *,
    namespace: str,
    operator_namespace: str,
    templates: Iterable[TemplateView],
) -> TemplateChosen | TemplateRefused:
    """The template of a run in ``namespace``.

    The run's own namespace comes first, then the operator's; others are never looked at. Of a
    detected task type that nobody serves, a template for General is taken.
    """
    scopes = dict.fromkeys((namespace, operator_namespace))
    seen = [view for view in templates if view.namespace in scopes]
    catalogue = [sorted(_of(seen, scope), key=_by_name) for scope in scopes]
    usable = [[view for view in views if _speaks(view, spec)] for views in catalogue]
    hints = [_hints(view) for views in usable for view in views]
    detection = detect_task(spec, hints)
    if spec.template_ref is not None:
        return _by_reference(spec, spec.template_ref.name, catalogue, tuple(scopes), detection)
    found = _by_task(spec, detection.task_type, usable)
    if found is None and spec.task_type is None:
        found = _by_task(spec, TaskType.GENERAL, usable)
    if found is None:
        return _refuse_task(spec, detection, tuple(scopes))
    return _if_ready(found, detection)


def _by_reference(
    spec: SandboxRunSpec,
    name: str,
    catalogue: Sequence[Sequence[TemplateView]],
    scopes: Sequence[str],
    detection: Detection,
) -> TemplateChosen | TemplateRefused:
    found = next((view for views in catalogue for view in views if view.name == name), None)
    if found is None:
        known = sorted({view.name for views in catalogue for view in views})
        return TemplateRefused(
            RunReason.TEMPLATE_NOT_FOUND,
            f"No SandboxTemplate {name!r} in {_places(scopes)}; there are:"
            f" {', '.join(known[:10]) or 'none'}. Name one of these in spec.templateRef of a new"
            f" run, or create {name!r}.",
            detection,
        )
    if not _speaks(found, spec):
        return TemplateRefused(
            RunReason.INVALID_SPEC,
            f"SandboxTemplate {name!r} runs {', '.join(found.spec.languages)}, not"
            f" {spec.language}. Create a new run with another template or language.",
            detection,
        )
    return _if_ready(found, detection)


def _by_task(
    spec: SandboxRunSpec, task: TaskType, usable: Sequence[Sequence[TemplateView]]
) -> TemplateView | None:
    script = script_of(spec)
    for views in usable:
        candidates = [view for view in views if task in view.spec.task_types]
        if candidates:
            return min(candidates, key=lambda view: _rank(view, script))
    return None


def _rank(view: TemplateView, script: Script) -> tuple[bool, bool, str]:
    """Templates that the code fits come first, then those that are ready, then by name."""
    return not matched_hint(script, _hints(view)), not view.ready, view.name


def _refuse_task(
    spec: SandboxRunSpec, detection: Detection, scopes: Sequence[str]
) -> TemplateRefused:
    how = "given" if spec.task_type else "detected"
    return TemplateRefused(
        RunReason.TEMPLATE_NOT_FOUND,
        f"No SandboxTemplate in {_places(scopes)} serves the {how} task type"
        f" {detection.task_type} in {spec.language}. Create one that lists it in spec.taskTypes,"
        " or name a template in spec.templateRef of a new run.",
        detection,
    )


def _if_ready(view: TemplateView, detection: Detection) -> TemplateChosen | TemplateRefused:
    if view.ready:
        return TemplateChosen(view, detection)
    return TemplateRefused(
        RunReason.TEMPLATE_NOT_READY,
        f"SandboxTemplate {view.namespace}/{view.name} is not ready: {view.message}."
        " The run goes on as soon as it is.",
        detection,
    )


def _hints(view: TemplateView) -> Hints:
    found = view.spec.detect
    return Hints(
        source=view.name,
        task_types=view.spec.task_types,
        imports=found.imports if found else (),
        patterns=found.patterns if found else (),
    )


def _speaks(view: TemplateView, spec: SandboxRunSpec) -> bool:
    return spec.code is None or not view.spec.languages or spec.language in view.spec.languages


def _of(views: Iterable[TemplateView], namespace: str) -> Iterable[TemplateView]:
    return (view for view in views if view.namespace == namespace)


def _by_name(view: TemplateView) -> str:
    return view.name


def _places(scopes: Sequence[str]) -> str:
    return " and ".join(f"namespace {scope!r}" for scope in scopes)
