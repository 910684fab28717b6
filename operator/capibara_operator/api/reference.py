"""The reference of the four kinds, written from their schemas: ``python -m ... FILE``."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capibara_operator.api.common import API_VERSION
from capibara_operator.api.crd import custom_resource_definition
from capibara_operator.api.kinds import KINDS, Kind

_HEAD = f"""\
# Reference of the kinds

Generated from the models by `make crds`; do not edit. The API version of all is `{API_VERSION}`.
The same text is at hand in a cluster: `kubectl explain sandboxrun.spec`, and so on.
"""


def render() -> str:
    """All kinds as Markdown, the same for the same models."""
    return "\n".join([_HEAD, *(_kind(kind) for kind in KINDS)])


def _kind(kind: Kind) -> str:
    version = custom_resource_definition(kind)["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    scope = "namespaced" if kind.namespaced else "cluster-scoped"
    lines = [f"## {kind.kind}", ""]
    lines += [kind.description, "", f"`{kind.plural}`, short `{kind.short_name}`, {scope}.", ""]
    for part in ("spec", "status"):
        lines += [f"### {kind.kind} {part}", "", "| field | type | meaning |", "|---|---|---|"]
        lines += [_row(path, node, needed) for path, node, needed in _fields(properties[part])]
        lines.append("")
    return "\n".join(lines)


def _fields(
    node: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Every field below ``node``, depth first: its path, its schema, whether it is required."""
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, child, name in node.get("required", ())
        item = child.get("items", {})
        yield from _fields(child, f"{path}.")
        yield from _fields(item, f"{path}[].")


def _row(path: str, node: Mapping[str, Any], required: bool) -> str:
    meaning = [str(node.get("description", ""))]
    if required:
        meaning.append("Required.")
    if "default" in node:
        meaning.append(f"Default: `{json.dumps(node['default'])}`.")
    bounds = [f"{word} {node[key]}" for key, word in _BOUNDS.items() if key in node]
    if bounds:
        meaning.append(f"({', '.join(bounds)})")
    text = " ".join(part for part in meaning if part).replace("|", "\\|")
    return f"| `{path}` | {_type(node)} | {text} |"


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "maxLength": "characters at most",
    "maxItems": "items at most",
    "maxProperties": "entries at most",
}


def _type(node: Mapping[str, Any]) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node["type"] == "object" and isinstance(node.get("additionalProperties"), dict):
        return f"map of {_type(node['additionalProperties'])}"
    return str(node.get("format", node["type"]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m capibara_operator.api.reference FILE")
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
