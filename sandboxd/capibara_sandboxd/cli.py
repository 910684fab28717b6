"""The ``capibara-sandboxd`` command."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import __version__, config, logs
from .config import ConfigurationError, Settings
from .isolation import host as hosts
from .isolation.host import HostError
from .server import serve

_USAGE_EXIT: Final = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="capibara-sandboxd",
        description="A local, E2B-compatible sandbox runtime for development, CI and trusted use.",
        epilog=f"The API key is read from {config.ENVIRONMENT_KEY}.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("serve", help="serve the E2B API")
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    run.add_argument("--port", type=int, default=3000, help="port, 0 = any (%(default)s)")
    run.add_argument("--state-dir", type=Path, help="where sandboxes' files are kept")
    run.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="NAME:cpu=1,memory=1024",
        help=f"a template; memory in MiB; repeatable; also {config.ENVIRONMENT_TEMPLATES}, "
        "separated by ';'",
    )
    run.add_argument("--max-sandboxes", type=int, default=100, help="limit (%(default)s)")
    run.add_argument("--max-lifetime", type=int, default=24 * 3600, help="seconds (%(default)s)")
    run.add_argument("--pids", type=int, default=512, help="per sandbox (%(default)s)")
    run.add_argument("--log-format", choices=("json", "text"), default="json")
    commands.add_parser("doctor", help="say what isolation this host supports")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    for name in ("max_sandboxes", "max_lifetime", "pids"):
        if getattr(arguments, name) < 1:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be 1 or more")
    state = arguments.state_dir or config.default_state_dir(os.environ)
    return Settings(
        host=arguments.host,
        port=arguments.port,
        api_key=config.api_key(os.environ),
        state_dir=config.checked_state_dir(state),
        templates=config.templates(arguments.template, os.environ),
        max_sandboxes=arguments.max_sandboxes,
        max_lifetime=arguments.max_lifetime,
        pids=arguments.pids,
        log_format=arguments.log_format,
    )


def _doctor() -> int:
    with tempfile.TemporaryDirectory(prefix="sandboxd-doctor-") as directory:
        Path(directory).chmod(0o711)
        host = hosts.detect(Path(directory))
        for name, enforced, how in host.findings():
            print(f"{'yes' if enforced else 'NO ':3} {name}: {how}")
        host.cgroups.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 = the host cannot, 2 = a wrong setting."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "doctor":
            return _doctor()
        settings = _settings(arguments)
        logs.configure(settings.log_format)
        asyncio.run(serve(settings))
    except ConfigurationError as error:
        print(f"capibara-sandboxd: {error}", file=sys.stderr)
        return _USAGE_EXIT
    except HostError as error:
        print(f"capibara-sandboxd: {error}", file=sys.stderr)
        return 1
    return 0
