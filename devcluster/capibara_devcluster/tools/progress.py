"""A bar with the time left for a build of Go packages."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_NOTE_LENGTH: Final = 60
# Go prints what it compiles and what it downloads; only the former are packages of the total.
_OTHER_LINES: Final = ("go: ", "#", "\t")


def is_package(line: str) -> bool:
    """Whether a line of `go build -v` names a package that was compiled."""
    return bool(line.strip()) and not line.startswith(_OTHER_LINES) and " " not in line.strip()


class BuildProgress:
    """Counts compiled packages; packages from Go's cache are added when their group ends."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total} packages"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("preparing tools", total=None)
        self._said = ""
        self._finished = 0
        self._in_group = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def describe(self, step: str) -> None:
        """Say what is being done."""
        self._progress.update(self._task, description=step)
        if not self._progress.console.is_terminal and step != self._said:
            self._said = step
            self._progress.console.print(step)

    def note(self, line: str) -> None:
        """Show what Go says it is doing, where a line can be replaced by the next."""
        if self._progress.console.is_terminal:
            self._progress.update(self._task, description=line.strip()[:_NOTE_LENGTH])

    def total(self, packages: int) -> None:
        """Say how many packages there are."""
        self._progress.reset(self._task, total=packages)

    def compiled(self, line: str) -> None:
        """Take one line of `go build -v`."""
        if is_package(line):
            self._in_group += 1
            self._progress.update(self._task, completed=self._finished + self._in_group)

    def finish_group(self, packages: int) -> None:
        """Count a group's packages as done, whether they were compiled or cached."""
        self._finished += packages
        self._in_group = 0
        self._progress.update(self._task, completed=self._finished)
