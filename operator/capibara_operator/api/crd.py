"""CustomResourceDefinitions generated from the models: ``python -m ... OUTDIR``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from capibara_operator.api.common import GROUP, VERSION, validations
from capibara_operator.api.kinds import KINDS, Column, Kind

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "discriminator", "examples", "readOnly", "$defs"})
_REFUSED: Final = frozenset(
    {
        *("oneOf", "allOf", "not", "prefixItems", "patternProperties", "uniqueItems"),
        *("exclusiveMinimum", "exclusiveMaximum"),
    }
)
_FORMATS: Final = frozenset({"int32", "int64", "date-time"})


class NotStructuralError(ValueError):
    """A model has a field that a CustomResourceDefinition cannot express."""


def structural(schema: Mapping[str, Any]) -> Schema:
    """A pydantic JSON schema as a structural OpenAPI schema, all references put in place."""
    return _node(dict(schema), schema.get("$defs", {}), ())


def _node(node: Schema, defs: Mapping[str, Schema], seen: tuple[str, ...]) -> Schema:
    node, seen = _inlined(_without_null(node), defs, seen)
    _check(node)
    found = {key: value for key, value in node.items() if key not in _DROPPED}
    if found.get("additionalProperties") is False:
        del found["additionalProperties"]
    if found.get("default") in (None, [], {}, ""):
        found.pop("default", None)
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if found.get("format") not in _FORMATS:
        found.pop("format", None)
    return _children(found, defs, seen)


def _children(node: Schema, defs: Mapping[str, Schema], seen: tuple[str, ...]) -> Schema:
    if "items" in node:
        node["items"] = _node(node["items"], defs, seen)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _node(node["additionalProperties"], defs, seen)
        node.pop("propertyNames", None)
    if "properties" in node:
        node["properties"] = {
            name: _node(child, defs, seen) for name, child in node["properties"].items()
        }
    return node


def _inlined(
    node: Schema, defs: Mapping[str, Schema], seen: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    """``node`` with its reference replaced; what stands beside the reference wins."""
    while "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        if name in seen:
            raise NotStructuralError(f"{name} contains itself; a CRD cannot express recursion")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        node, seen = defs[name] | beside, (*seen, name)
    return node, seen


def _without_null(node: Schema) -> Schema:
    """``X | None`` as ``X``: absence and null mean the same in our kinds."""
    if "anyOf" not in node or node.get("x-kubernetes-int-or-string"):
        return node
    real: list[Schema] = [option for option in node["anyOf"] if option.get("type") != "null"]
    if len(real) != 1:
        raise NotStructuralError(f"a union of types is not structural: {node['anyOf']}")
    return real[0] | {key: value for key, value in node.items() if key != "anyOf"}


def _check(node: Schema) -> None:
    refused = _REFUSED & node.keys()
    if refused:
        raise NotStructuralError(f"{sorted(refused)} cannot stand in a structural schema: {node}")
    if "type" not in node and not node.get("x-kubernetes-int-or-string"):
        raise NotStructuralError(f"a node has no type: {node}")


def custom_resource_definition(kind: Kind) -> Schema:
    """The whole CustomResourceDefinition of one kind, as ``kubectl apply`` takes it."""
    subresources: Schema = {"status": {}}
    if kind.scale:
        subresources["scale"] = dict(kind.scale)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object_schema(kind)},
        "subresources": subresources,
        "selectableFields": [{"jsonPath": path} for path in kind.selectable],
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if not kind.selectable:
        del version["selectableFields"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "capibara6"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": list(kind.categories),
            },
            "versions": [version],
        },
    }


def _object_schema(kind: Kind) -> Schema:
    spec = structural(kind.spec.model_json_schema(by_alias=True, mode="validation"))
    status = structural(kind.status.model_json_schema(by_alias=True, mode="validation"))
    # A fresh object is "in progress" to kstatus before the operator has seen it.
    status["default"] = {"observedGeneration": -1}
    del status["properties"]["observedGeneration"]["default"]
    schema: Schema = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the kind's schema."},
            "kind": {"type": "string", "description": "Name of the kind."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    return schema | validations(*kind.rules) if kind.rules else schema


def _column(column: Column) -> Schema:
    found: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return found | {"priority": 1} if column.wide else found


def render(kind: Kind) -> str:
    """The CustomResourceDefinition as YAML, the same for the same models."""
    import yaml  # noqa: PLC0415  # the operator itself never renders

    class Dumper(yaml.SafeDumper):
        """Writes shared parts out each time: anchors would make diffs unreadable."""

        def ignore_aliases(self, _data: Any) -> bool:
            return True

    text = yaml.dump(
        custom_resource_definition(kind),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return f"# Generated from the models by `make crds`; do not edit.\n{text}"


def write(directory: Path) -> None:
    """Write one file for each kind into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        path = directory / f"{GROUP}_{kind.plural}.yaml"
        path.write_text(render(kind), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m capibara_operator.api.crd OUTDIR")
    write(Path(sys.argv[1]))
