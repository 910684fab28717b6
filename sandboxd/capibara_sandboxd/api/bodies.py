"""Request bodies of the control plane, checked field by field, and its answers."""

import datetime as dt
import re
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from capibara_sandboxd.config import Settings
from capibara_sandboxd.errors import ApiError, bad_request
from capibara_sandboxd.sandbox import ENVD_VERSION, Request, Sandbox

CLIENT_ID: Final = "capibara-sandboxd"
DISK_SIZE_MIB: Final = 10 * 1024
_DEFAULT_TIMEOUT: Final = 300
_DEFAULT_TIMEOUT_V1: Final = 15
_KEY: Final = re.compile(r"[a-z0-9-]{1,255}")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# No process can be given these: the null byte, and lone surrogates, which UTF-8 cannot encode.
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")
_MAX_PAIRS: Final = 256
_MAX_TEXT: Final = 64 * 1024
# Asking for one of these must not look as if it had been granted.
_UNSUPPORTED: Final = ("mcp", "iam", "volumeMounts")


def _strings(body: Mapping[str, Any], name: str) -> dict[str, str]:
    value = body.get(name) or {}
    if not isinstance(value, dict) or len(value) > _MAX_PAIRS:
        raise bad_request(f"{name} must be an object of at most {_MAX_PAIRS} strings")
    for key, text in value.items():
        if not isinstance(text, str) or len(text) > _MAX_TEXT or _UNUSABLE.search(key + text):
            raise bad_request(f"{name}.{key!a} must be a string of at most {_MAX_TEXT} characters")
    return value


def _flag(body: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = body.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false")
    return bool(value)


def seconds(body: Mapping[str, Any], name: str, settings: Settings, default: int | None) -> int:
    """A lifetime out of a body: 0 to the maximum, whole seconds."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_request(f"{name} must be a whole number of seconds, 0 or more")
    if value > settings.max_lifetime:
        raise bad_request(f"{name} cannot be greater than {settings.max_lifetime} seconds")
    return value


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if body.get(name):
            raise bad_request(f"{name} is not supported by sandboxd; leave it out")
    network = body.get("network") or {}
    if not isinstance(network, dict):
        raise bad_request("network must be an object")
    for name, value in network.items():
        # Sandboxes have no network: rules that only take away are kept by that.
        if value and name not in {"denyOut", "allowPublicTraffic"}:
            raise bad_request(f"network.{name} is not supported: sandboxes have no network")


def create_request(body: Mapping[str, Any], settings: Settings, *, version: int) -> Request:
    """Check the body of a create; unknown templates answer 404."""
    name = body.get("templateID")
    if not isinstance(name, str) or not name:
        raise bad_request("templateID is required")
    _refuse_unsupported(body)
    template = settings.templates.get(name)
    if template is None:
        known = ", ".join(sorted(settings.templates))
        raise ApiError(HTTPStatus.NOT_FOUND, f"template '{name}' not found; there are: {known}")
    default = _DEFAULT_TIMEOUT if version == 2 else _DEFAULT_TIMEOUT_V1
    timeout = seconds(body, "timeout", settings, default)
    if timeout == 0:
        raise bad_request("timeout must be greater than 0")
    auto_resume = body.get("autoResume") or {}
    if isinstance(auto_resume, dict) and auto_resume.get("enabled"):
        raise bad_request("autoResume is not supported: resume with connect")
    envs = _strings(body, "envVars")
    for key in envs:
        if not _ENV_NAME.fullmatch(key):
            raise bad_request(f"envVars: '{key}' is no name of an environment variable")
    _flag(body, "allow_internet_access", default=True)
    if body.get("autoPauseMemory") is False:
        raise bad_request("autoPauseMemory=false is not supported: a pause keeps memory")
    return Request(
        template,
        timeout,
        _strings(body, "metadata"),
        envs,
        pause_on_timeout=_flag(body, "autoPause"),
        secure=_flag(body, "secure", default=True) if version == 1 else True,
        public_traffic=_flag(body.get("network") or {}, "allowPublicTraffic", default=True),
    )


def idempotency_key(text: str | None) -> str | None:
    """The header's value, checked."""
    if text is not None and not _KEY.fullmatch(text):
        raise bad_request("Idempotency-Key must be 1 to 255 characters of a-z, 0-9 and '-'")
    return text


def metadata_filter(text: str) -> dict[str, str]:
    """Pairs of a list filter, which arrives quoted twice (the query was unquoted once)."""
    pairs = urllib.parse.parse_qsl(text, keep_blank_values=True)
    return {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, value in pairs}


def created(sandbox: Sandbox) -> dict[str, Any]:
    """The answer to create and connect."""
    answer = {
        "templateID": sandbox.request.template.name,
        "sandboxID": sandbox.sandbox_id,
        "alias": sandbox.request.template.name,
        "clientID": CLIENT_ID,
        "envdVersion": ENVD_VERSION,
    }
    if sandbox.token:
        answer["envdAccessToken"] = sandbox.token
    if not sandbox.request.public_traffic:
        answer["trafficAccessToken"] = sandbox.traffic_token
    return answer


def listed(sandbox: Sandbox) -> dict[str, Any]:
    """One sandbox of a list."""
    template = sandbox.request.template
    return {
        "templateID": template.name,
        "alias": template.name,
        "sandboxID": sandbox.sandbox_id,
        "clientID": CLIENT_ID,
        "startedAt": _time(sandbox.started),
        "endAt": _time(sandbox.end),
        "cpuCount": template.cpus,
        "memoryMB": template.memory_mib,
        "diskSizeMB": DISK_SIZE_MIB,
        "state": "paused" if sandbox.state == "paused" else "running",
        "envdVersion": ENVD_VERSION,
        "metadata": dict(sandbox.request.metadata),
    }


def detailed(sandbox: Sandbox) -> dict[str, Any]:
    """One sandbox with its token."""
    on_timeout = "pause" if sandbox.request.pause_on_timeout else "kill"
    answer = listed(sandbox) | {
        "allowInternetAccess": False,
        "lifecycle": {"autoResume": False, "onTimeout": on_timeout},
    }
    if sandbox.token:
        answer["envdAccessToken"] = sandbox.token
    return answer


def _time(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
