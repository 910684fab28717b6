"""The command ``capibara-operator``."""

import argparse
import asyncio
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from pydantic.fields import FieldInfo

from capibara_operator import logs
from capibara_operator.settings import Settings, SettingsError, load
from capibara_operator.version import VERSION


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exit code 0 after a signal, 1 when it broke, 2 for wrong settings."""
    parser = _parser()
    parser.parse_args(arguments)
    try:
        settings = load()
    except SettingsError as error:
        print(f"capibara-operator: wrong settings:\n{error}", file=sys.stderr)
        sys.exit(2)
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    _run(settings)


def _run(settings: Settings) -> NoReturn:
    import uvloop  # noqa: PLC0415 - slow imports after --help

    from capibara_operator import app  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(app.run(settings))
        # The SDK's native runtime can abort in the interpreter's teardown; all is closed by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _parser() -> argparse.ArgumentParser:
    variables = "\n".join(_explained(*item) for item in Settings.model_fields.items())
    parser = argparse.ArgumentParser(
        prog="capibara-operator",
        description="Runs AI services and code sandboxes from Kubernetes resources.",
        epilog=f"environment:\n{variables}\n\nexit codes: 0 stopped by a signal, 1 failed, "
        "2 wrong settings",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.add_argument("command", nargs="?", choices=["run"], default="run", help="run (default)")
    return parser


def _explained(name: str, field: FieldInfo) -> str:
    default = f" (default: {field.default})" if field.default not in {"", ()} else ""
    meaning = " ".join((field.description or "").split())
    lines = textwrap.wrap(meaning, width=84, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([f"  CAPIBARA_{name.upper()}{default}", *lines])
