"""Logs: one JSON object a line (or plain text), with the reconciliation that a line belongs to."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pythonjsonlogger.json import JsonFormatter

Format = Literal["json", "text"]

_fields: ContextVar[dict[str, str] | None] = ContextVar("log_fields", default=None)

_KOPF_FIELDS: Final = ("k8s_skip", "k8s_ref", "settings")


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every line that is logged inside, also by tasks started inside."""
    token = _fields.set({**(_fields.get() or {}), **{k: v for k, v in fields.items() if v}})
    try:
        yield
    finally:
        _fields.reset(token)


def configure(*, level: str, log_format: Format) -> None:
    """Send the logs of the whole process to stderr. ``level`` is a name of ``logging``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Per-object lines of Kopf, and per-request lines of the HTTP clients, are a log of their own.
    for name in (
        "kopf.objects",
        "kopf.activities",
        "kopf._core",
        "kopf._cogs",
        "aiohttp.access",
        "httpx",
        "httpcore",
    ):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _context(record: logging.LogRecord) -> dict[str, str]:
    own = {k: v for k, v in (_fields.get() or {}).items() if k not in record.__dict__}
    # ``name`` of a record is its logger; ours is the object's name and wins.
    if (name := (_fields.get() or {}).get("name")) is not None:
        own["name"] = name
    return own


class _Json(JsonFormatter):
    """``{"ts", "level", "logger", "msg", ...fields, "error"}``."""

    def __init__(self) -> None:
        super().__init__(reserved_attrs=[*_reserved(), *_KOPF_FIELDS])

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],  # noqa: ARG002 - the library's signature
    ) -> None:
        """Put the fields in the order in which people read them."""
        log_data["ts"] = datetime.fromtimestamp(record.created, UTC).isoformat(
            timespec="milliseconds"
        )
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["msg"] = record.getMessage()
        log_data.update(_context(record))
        log_data.update({k: v for k, v in record.__dict__.items() if k not in self.reserved_attrs})
        if record.exc_info and record.exc_info[1] is not None:
            log_data.setdefault("error", str(record.exc_info[1]))
            log_data["stacktrace"] = self.formatException(record.exc_info)


class _Text(logging.Formatter):
    """``time level logger: message key=value ...`` for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback where there is one."""
        extra = {k: v for k, v in record.__dict__.items() if k not in _TEXT_RESERVED}
        fields = {k: v for k, v in {**_context(record), **extra}.items() if k != "reconcileID"}
        pairs = "".join(f" {key}={value!r}" for key, value in fields.items())
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {record.levelname:<7} {record.name}: {record.getMessage()}{pairs}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _reserved() -> list[str]:
    blank = logging.LogRecord("", 0, "", 0, "", (), None)
    return [*blank.__dict__, "message", "asctime", "taskName", "color_message"]


_TEXT_RESERVED: Final = frozenset([*_reserved(), *_KOPF_FIELDS])
