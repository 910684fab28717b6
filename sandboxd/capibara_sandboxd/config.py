"""Settings of the daemon, from flags and environment."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENVIRONMENT_KEY: Final = "CAPIBARA_SANDBOXD_API_KEY"
ENVIRONMENT_TEMPLATES: Final = "CAPIBARA_SANDBOXD_TEMPLATES"
ENVIRONMENT_STATE: Final = "CAPIBARA_SANDBOXD_STATE_DIR"
MINIMUM_MEMORY_MIB: Final = 128
MAXIMUM_MEMORY_MIB: Final = 64 * 1024
MAXIMUM_CPUS: Final = 64
# A unix socket's path is limited to 107 bytes; "sandboxes/<20>/agent.sock" comes on top.
MAXIMUM_STATE_PATH: Final = 60
_TEMPLATE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class ConfigurationError(Exception):
    """A setting is missing or wrong; the message says which and how to put it right."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template: its cpu and memory hold for every sandbox made of it."""

    name: str
    cpus: int = 2
    memory_mib: int = 512


BUILT_IN: Final = (Template("base"), Template("code-interpreter-v1", 2, 1024))


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``serve`` runs with. Times are in seconds."""

    host: str
    port: int
    api_key: str
    state_dir: Path
    templates: Mapping[str, Template]
    max_sandboxes: int = 100
    max_lifetime: int = 24 * 3600
    pids: int = 512
    log_format: str = "json"


def parse_template(text: str) -> Template:
    """Read ``NAME:cpu=1,memory=1024``; memory is in MiB, both parts may be left out."""
    name, _, rest = text.strip().partition(":")
    if not _TEMPLATE_NAME.fullmatch(name):
        raise ConfigurationError(f"template '{text}': the name must be like 'data-analysis'")
    values = {"cpu": 2, "memory": 512}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in values or not value.isdecimal():
            raise ConfigurationError(
                f"template '{text}': '{part}' is not cpu=<count> or memory=<MiB>"
            )
        values[key] = int(value)
    if not 1 <= values["cpu"] <= MAXIMUM_CPUS:
        raise ConfigurationError(f"template '{text}': cpu must be 1 to {MAXIMUM_CPUS}")
    if not MINIMUM_MEMORY_MIB <= values["memory"] <= MAXIMUM_MEMORY_MIB:
        raise ConfigurationError(
            f"template '{text}': memory must be {MINIMUM_MEMORY_MIB} to {MAXIMUM_MEMORY_MIB} MiB"
        )
    return Template(name, values["cpu"], values["memory"])


def templates(flags: Sequence[str], environment: Mapping[str, str]) -> dict[str, Template]:
    """The built-in templates, then those of the environment, then those of the flags."""
    configured = environment.get(ENVIRONMENT_TEMPLATES, "").split(";")
    found = {template.name: template for template in BUILT_IN}
    for text in (*filter(str.strip, configured), *flags):
        template = parse_template(text)
        found[template.name] = template
    return found


def api_key(environment: Mapping[str, str]) -> str:
    """The key that clients must send; there is no default and no way without one."""
    key = environment.get(ENVIRONMENT_KEY, "").strip()
    if not key:
        raise ConfigurationError(
            f"{ENVIRONMENT_KEY} is not set: sandboxd serves nobody without a key. "
            f"Set it, for example: {ENVIRONMENT_KEY}=$(openssl rand -hex 24) "
            "capibara-sandboxd serve"
        )
    return key


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """Where run state is kept: the environment's choice, else by who runs the program."""
    chosen = environment.get(ENVIRONMENT_STATE)
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/capibara-sandboxd")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/tmp/run-{os.geteuid()}"  # noqa: S108
    return Path(runtime) / "capibara-sandboxd"


def checked_state_dir(path: Path) -> Path:
    """Absolute path of the state directory; refuses one too long for unix sockets."""
    path = path.absolute()
    if len(str(path)) > MAXIMUM_STATE_PATH:
        raise ConfigurationError(
            f"state directory '{path}' is longer than {MAXIMUM_STATE_PATH} characters, "
            "too long for the unix sockets in it; choose a shorter --state-dir"
        )
    return path
