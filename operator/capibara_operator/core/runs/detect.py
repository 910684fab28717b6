"""What a run is about, from its code, command and description. Pure; never runs the code."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from capibara_operator.api.common import Language, TaskType
from capibara_operator.api.run import Detection, SandboxRunSpec
from capibara_operator.core.runs import python_code, shell_code, signals

MAX_EVIDENCE: Final = 8
_MAX_EVIDENCE_LENGTH: Final = 120
_LEAST_SCORE: Final = 2
_HINT_WEIGHT: Final = 4
_QUICK_WEIGHT: Final = 2
_DOUBT: Final = 2
_SHELLS: Final = frozenset({"bash", "sh", "dash", "zsh"})
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class Hints:
    """What a template says about code that it suits (``spec.detect``), and for which tasks."""

    source: str
    task_types: tuple[TaskType, ...]
    imports: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(slots=True)
class _Scores:
    by_task: defaultdict[TaskType, int] = field(default_factory=lambda: defaultdict(int))
    evidence: list[tuple[int, TaskType, str]] = field(default_factory=list)

    def add(self, task: TaskType, weight: int, why: str) -> None:
        self.by_task[task] += weight
        self.evidence.append((weight, task, why))

    def has(self, task: TaskType, why: str) -> bool:
        return any((known, reason) == (task, why) for _, known, reason in self.evidence)


@dataclass(frozen=True, slots=True)
class Script:
    """What a run executes, as text in one language; empty text where nothing can be read."""

    language: Language
    text: str


def detect_task(spec: SandboxRunSpec, hints: Sequence[Hints] = ()) -> Detection:
    """The task type that the code speaks for; General where nothing or two things do.

    ``confidence`` is in percent. A given ``taskType`` is taken as it is, with 100.
    """
    if spec.task_type is not None:
        return Detection(task_type=spec.task_type, confidence=100, evidence=("spec.taskType",))
    script = script_of(spec)
    scores = _Scores()
    if script.language is Language.PYTHON:
        _score_python(script.text, scores)
    else:
        _score_shell(script.text, scores)
    _score_patterns(spec.description, signals.WORDS, scores, "description says")
    for hint in hints:
        hit = matched_hint(script, hint)
        for task in hint.task_types if hit else ():
            if not scores.has(task, hit):
                scores.add(task, _HINT_WEIGHT, f"template {hint.source}: {hit}")
    return _decide(scores)


def script_of(spec: SandboxRunSpec) -> Script:
    """The code of a run, or the script inside of ``bash -c`` or ``python -c``, or the command."""
    if spec.code is not None:
        return Script(spec.language, spec.code)
    words = (*spec.command, *spec.args)
    program = words[0].rsplit("/", 1)[-1] if words else ""
    if len(words) > 2 and words[1] in {"-c", "-lc", "-ec"}:
        if program in _SHELLS:
            return Script(Language.BASH, words[2])
        if _PYTHON.fullmatch(program):
            return Script(Language.PYTHON, words[2])
    return Script(Language.BASH, " ".join(words))


def matched_hint(script: Script, hint: Hints) -> str:
    """What of a template's hints occurs in the script; empty when nothing does."""
    modules = python_code.read(script.text).modules if script.language is Language.PYTHON else ()
    for wanted in hint.imports:
        if any(name == wanted or name.startswith(f"{wanted}.") for name in modules):
            return f"imports {wanted}"
    return next(
        (f"contains {pattern}" for pattern in hint.patterns if occurs(pattern, script.text)), ""
    )


def occurs(pattern: str, text: str) -> bool:
    """Whether ``pattern`` stands within a line of ``text``; ``*`` is anything, in linear time.

    Not a regular expression: users of a namespace write it and the operator evaluates it.
    """
    parts = [part for part in pattern.split("*") if part]
    if not parts or not all(part in text for part in parts):
        return False
    return any(_in_order(parts, line) for line in text.splitlines())


def _in_order(parts: Iterable[str], line: str) -> bool:
    position = 0
    for part in parts:
        found = line.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return True


def _score_python(text: str, scores: _Scores) -> None:
    code = python_code.read(text)
    for module in code.modules:
        known, signal = _lookup(module, signals.IMPORTS)
        if signal is not None:
            scores.add(*signal, f"imports {known}")
    learning = TaskType.MACHINE_LEARNING in scores.by_task
    # Names such as show and fit say something only beside a library that has them.
    for call in code.calls if scores.by_task else ():
        if call in signals.CALLS:
            scores.add(*signals.CALLS[call], f"calls {call}()")
    trained = sorted(signals.TRAINING_CALLS.intersection(code.calls))
    if learning and trained:
        scores.add(TaskType.MACHINE_LEARNING, signals.TRAINING_BONUS, f"trains by {trained[0]}()")
    if not scores.by_task and code.quick:
        scores.add(TaskType.QUICK_SCRIPT, _QUICK_WEIGHT, "short, standard library only")


def _lookup(
    module: str, table: Mapping[str, tuple[TaskType, int]]
) -> tuple[str, tuple[TaskType, int] | None]:
    name = module
    while name:
        if name in table:
            return name, table[name]
        name = name.rpartition(".")[0]
    return module, None


def _score_shell(text: str, scores: _Scores) -> None:
    script = shell_code.read(text)
    for program in script.programs:
        if program in signals.COMMANDS:
            scores.add(*signals.COMMANDS[program], f"runs {program}")
    for module in script.modules:
        known, signal = _lookup(module, signals.IMPORTS)
        if signal is not None:
            scores.add(*signal, f"uses {known}")
    _score_patterns(script.text, signals.COMMAND_PATTERNS, scores, "command has")
    if not scores.by_task and script.quick:
        scores.add(TaskType.QUICK_SCRIPT, _QUICK_WEIGHT, "short, everyday commands only")


def _score_patterns(
    text: str, patterns: Iterable[tuple[str, TaskType, int]], scores: _Scores, how: str
) -> None:
    for pattern, task, weight in patterns:
        match = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text, re.IGNORECASE)
        if match:
            scores.add(task, weight, f"{how} {match[0]!r}")


def _decide(scores: _Scores) -> Detection:
    ranked = sorted(scores.by_task.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] < _LEAST_SCORE:
        return Detection(task_type=TaskType.GENERAL, confidence=0, evidence=("no clear sign",))
    (task, best), second = ranked[0], ranked[1][1] if len(ranked) > 1 else 0
    if best == second:
        tied = " and ".join(sorted(name for name, score in ranked if score == best))
        return Detection(task_type=TaskType.GENERAL, confidence=0, evidence=(f"tie of {tied}",))
    confidence = 100 * best // (best + second + _DOUBT)
    strongest = sorted((item for item in scores.evidence if item[1] is task), key=lambda i: -i[0])
    evidence = dict.fromkeys(why[:_MAX_EVIDENCE_LENGTH] for _, _, why in strongest)
    return Detection(task_type=task, confidence=confidence, evidence=tuple(evidence)[:MAX_EVIDENCE])
