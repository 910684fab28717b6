"""Reads Python source for detection: which modules it imports and which functions it calls."""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from capibara_operator.core.runs.signals import QUICK_MODULES

# Parsing is the operator's time spent on a stranger's text: long code is only scanned.
_MAX_PARSED_CHARACTERS: Final = 32 * 1024
_QUICK_LINES: Final = 25
_MAX_NAME: Final = 128
_SLOW_CALLS: Final = frozenset({"sleep", "input", "system", "popen", "fork"})
_IMPORT: Final = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_][\w.]*)[ \t]+import\b|import[ \t]+([A-Za-z_][^#;\n]*))",
    re.MULTILINE,
)
_CALL: Final = re.compile(r"\b([A-Za-z_]\w*)[ \t]*\(")


@dataclass(frozen=True, slots=True)
class PythonCode:
    """Modules and called names in order of appearance; ``quick``: a short plain script."""

    modules: tuple[str, ...]
    calls: tuple[str, ...]
    quick: bool = False


@lru_cache(maxsize=16)
def read(text: str) -> PythonCode:
    """Modules and calls of ``text``; what cannot be parsed is scanned line by line."""
    tree = _parse(text)
    if tree is None:
        return _scan(text)
    nodes = list(ast.walk(tree))
    modules = tuple(dict.fromkeys(name[:_MAX_NAME] for node in nodes for name in _modules(node)))
    calls = tuple(dict.fromkeys(name for node in nodes if (name := _called(node))))
    loops = any(isinstance(node, ast.While | ast.AsyncFor | ast.Await) for node in nodes)
    return PythonCode(
        modules, calls, not loops and bool(tree.body) and _short(text, modules, calls)
    )


def _parse(text: str) -> ast.Module | None:
    if len(text) > _MAX_PARSED_CHARACTERS:
        return None
    # IPython's lines (%magic, !command) are no Python; the kernel takes them all the same.
    plain = re.sub(r"^([ \t]*)[%!].*$", r"\1pass", text, flags=re.MULTILINE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _scan(text: str) -> PythonCode:
    found: dict[str, None] = {}
    for source, names in _IMPORT.findall(text):
        for name in [source] if source else names.split(","):
            found |= dict.fromkeys(part[:_MAX_NAME] for part in name.split()[:1])
    return PythonCode(tuple(found), tuple(dict.fromkeys(_CALL.findall(text))))


def _short(text: str, modules: tuple[str, ...], calls: tuple[str, ...]) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        len(lines) <= _QUICK_LINES
        and all(name.split(".")[0] in QUICK_MODULES for name in modules)
        and not _SLOW_CALLS.intersection(calls)
    )
