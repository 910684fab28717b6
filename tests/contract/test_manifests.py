"""The shipped templates and sample runs, as the models and the detector read them."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from capibara_operator.api.run import SandboxRunSpec
from capibara_operator.api.template import SandboxTemplateSpec
from capibara_operator.core.templates.select import TemplateChosen, TemplateView, select_template
from support.chart import sources

MANIFESTS: Final = Path(__file__).resolve().parents[2] / "manifests"
SHIPPED: Final = {
    "default": ("1", "512Mi", 300, "General"),
    "data-analysis": ("1", "1Gi", 600, "DataAnalysis"),
    "machine-learning": ("2", "2Gi", 1800, "MachineLearning"),
    "quick-script": ("1", "256Mi", 60, "QuickScript"),
    "visualization": ("1", "1Gi", 600, "Visualization"),
}
TEMPLATE_OF_SAMPLE: Final = {
    "word-count": "default",
    "sales-summary": "data-analysis",
    "digits-classifier": "machine-learning",
    "disk-check": "quick-script",
    "sales-plot": "visualization",
    "broken-average": "quick-script",
}


def _templates() -> dict[str, SandboxTemplateSpec]:
    found = sources("manifests/templates")
    return {name: SandboxTemplateSpec.model_validate(item["spec"]) for name, item in found.items()}


def _sample_runs() -> dict[str, dict[str, Any]]:
    found = sources("manifests/samples")
    return {name: item for name, item in found.items() if item["kind"] == "SandboxRun"}


def test_shipped_templates_have_their_sizes_and_timeouts() -> None:
    shown = {
        name: (spec.resources.cpu, spec.resources.memory, spec.timeout_seconds, *spec.task_types)
        for name, spec in _templates().items()
        if spec.resources
    }
    assert shown == SHIPPED


def test_there_is_a_sample_for_each_template_and_no_other_run() -> None:
    assert _sample_runs().keys() == TEMPLATE_OF_SAMPLE.keys()
    assert set(TEMPLATE_OF_SAMPLE.values()) == SHIPPED.keys()


@pytest.mark.parametrize(("sample", "template"), TEMPLATE_OF_SAMPLE.items())
def test_sample_gets_the_template_that_its_comment_says(sample: str, template: str) -> None:
    spec = SandboxRunSpec.model_validate(_sample_runs()[sample]["spec"])
    views = [
        TemplateView(namespace="capibara-system", name=name, spec=found, ready=True)
        for name, found in _templates().items()
    ]
    chosen = select_template(
        spec, namespace="capibara6", operator_namespace="capibara-system", templates=views
    )
    assert isinstance(chosen, TemplateChosen), chosen
    assert chosen.template.name == template


@pytest.mark.parametrize("folder", ["templates", "providers", "samples"])
def test_kustomization_lists_files_that_are_there(folder: str) -> None:
    path = MANIFESTS / folder / "kustomization.yaml"
    listed = set(yaml.safe_load(path.read_text(encoding="utf-8"))["resources"])
    assert listed <= {item.name for item in path.parent.iterdir()}
    runs = {f"{name}.yaml" for name in TEMPLATE_OF_SAMPLE} if folder == "samples" else set()
    assert runs <= listed
