"""Reads shell source for detection: which programs it starts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from capibara_operator.core.runs.python_code import read as read_python
from capibara_operator.core.runs.signals import QUICK_COMMANDS

_MAX_CHARACTERS: Final = 32 * 1024
_QUICK_LINES: Final = 15
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_SEPARATOR: Final = re.compile(r"\|\||&&|[|;&\n]|\$\(|`|\(|\{")
_PREFIX: Final = re.compile(
    r"^(?:\s|!|then\b|do\b|else\b|elif\b|if\b|while\b|until\b|sudo\b|exec\b|time\b|nohup\b|env\b"
    r"|[A-Za-z_]\w*=\S*)+"
)
_PROGRAM: Final = re.compile(r"^[\w./+\[-]+")
_KEYWORDS: Final = frozenset({"fi", "done", "esac", "for", "case", "in", "function", "}", "]"})
_PIP: Final = re.compile(r"\b(?:pip3?|uv pip|conda|mamba) install ([^|;&\n]+)")
_WAITS: Final = re.compile(r"\b(?:sleep|while|until|watch)\b")


@dataclass(frozen=True, slots=True)
class ShellCode:
    """Programs and Python modules that a script uses; ``text`` is without comments."""

    text: str
    programs: tuple[str, ...]
    modules: tuple[str, ...]
    quick: bool


def read(text: str) -> ShellCode:
    """Programs of ``text`` in order of appearance, by their base names."""
    plain = _COMMENT.sub("", text[:_MAX_CHARACTERS])
    programs = tuple(dict.fromkeys(_programs(plain)))
    packages = [word for names in _PIP.findall(plain) for word in names.split()]
    installed = [re.split(r"[=<>\[~]", word)[0].replace("-", "_") for word in packages]
    modules = tuple(dict.fromkeys((*_renamed(installed), *_heredoc_modules(plain))))
    lines = [line for line in plain.splitlines() if line.strip()]
    quick = (
        0 < len(lines) <= _QUICK_LINES
        and not modules
        and not _WAITS.search(plain)
        and QUICK_COMMANDS.issuperset(programs)
    )
    return ShellCode(plain, programs, modules, quick)


def _programs(text: str) -> Iterator[str]:
    for part in _SEPARATOR.split(text):
        match = _PROGRAM.match(_PREFIX.sub("", part))
        name = match[0].rsplit("/", 1)[-1] if match else ""
        if name and name not in _KEYWORDS:
            yield name


def _renamed(packages: list[str]) -> Iterator[str]:
    for name in packages:
        yield {"scikit_learn": "sklearn", "pillow": "PIL"}.get(name, name)


def _heredoc_modules(text: str) -> tuple[str, ...]:
    for match in re.finditer(
        r"\bpython3?\b[^\n]{0,99}<<-?\s*['\"]?(\w{1,32})['\"]?[^\n]{0,99}\n", text
    ):
        body, end, _ = text[match.end() :].partition(f"\n{match[1]}")
        if end:
            return read_python(body).modules
    return ()
