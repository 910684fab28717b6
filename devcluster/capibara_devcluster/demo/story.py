"""How the demo talks: numbered steps, tables as kubectl prints them, checks that hold or not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

from capibara_devcluster.demo.commands import StepError

_POLL_SECONDS = 0.5


@dataclass(slots=True)
class Story:
    """Prints the demo and remembers what held. ``steps`` is 0 while their number is not known."""

    steps: int = 0
    console: Console = field(default_factory=lambda: Console(highlight=False))
    began: float = field(default_factory=time.monotonic)
    checks: list[tuple[bool, str]] = field(default_factory=list)
    _step: int = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step; its time is printed at its end."""
        self._step += 1
        began = time.monotonic()
        number = f"{self._step}/{self.steps}" if self.steps else str(self._step)
        self.console.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")
        yield
        self.console.print(f"    [dim]{time.monotonic() - began:.1f} s[/]")

    def show(self, command: str, output: str) -> None:
        """A command and what it printed."""
        self.console.print(f"[green]$[/] {escape(command)}")
        self.console.print(escape(output.rstrip()), soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of explanation."""
        self.console.print(f"    {text}", soft_wrap=True)

    def check(self, held: bool, what: str) -> None:
        """Record whether something held that the demo promises."""
        self.checks.append((held, what))
        mark = "[green]✔[/]" if held else "[red]✖[/]"
        self.console.print(f"  {mark} {escape(what)}", soft_wrap=True)

    def wait(self, what: str, look: Callable[[], str | None], *, seconds: float) -> None:
        """Look again and again until ``look`` returns None; show what it returns meanwhile.

        Raises:
            StepError: it did not happen within ``seconds``; with the last that was seen.
        """
        deadline = time.monotonic() + seconds
        with self.console.status(f"waiting: {what}") as status:
            while (seen := look()) is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StepError(f"not within {seconds:.0f} s: {what}; last seen: {seen}")
                status.update(f"waiting at most {left:.0f} s: {what} ({escape(seen)})")
                time.sleep(_POLL_SECONDS)

    def finish(self) -> bool:
        """Sum up; whether everything held."""
        failed = [what for held, what in self.checks if not held]
        seconds = time.monotonic() - self.began
        self.console.print(
            f"\n[bold]{len(self.checks) - len(failed)} of {len(self.checks)} checks held"
            f" in {seconds:.0f} s[/]"
        )
        for what in failed:
            self.console.print(f"  [red]✖[/] {escape(what)}")
        return not failed
