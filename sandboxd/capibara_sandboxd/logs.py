"""Access and program logs: JSON lines or text, never with a key, token or body."""

import json
import logging
import sys
import time
from typing import Any, Final

_FIELDS: Final = ("sandbox", "reason", "method", "path", "status", "milliseconds", "error")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields that a record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        fields = " ".join(
            f"{name}={getattr(record, name)}" for name in _FIELDS if hasattr(record, name)
        )
        text = f"{self.formatTime(record)} {record.levelname} {record.getMessage()} {fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(log_format: str) -> None:
    """Send everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
