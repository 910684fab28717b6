"""Messages of a Jupyter kernel as events of the code interpreter."""

import time
from typing import Any, Final

_NAMES: Final = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


def _result(content: dict[str, Any], *, main: bool) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "result", "is_main_result": main}
    extra: dict[str, Any] = {}
    for mime, value in content["data"].items():
        name = _NAMES.get(mime)
        if name is None:
            extra[mime] = value
        elif name == "text":
            event["text"] = _unquoted(value)
        else:
            event[name] = value
    if extra:
        event["extra"] = extra
    return event


def _unquoted(text: str) -> str:
    """A string's repr without its quotes, as people expect to read it."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def events_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Events that one message stands for; most messages stand for none."""
    content = message["content"]
    match message["msg_type"]:
        case "stream":
            return [{"type": content["name"], "text": content["text"], "timestamp": time.time_ns()}]
        case "execute_input":
            return [{"type": "number_of_executions", "execution_count": content["execution_count"]}]
        case "execute_result":
            return [_result(content, main=True)]
        case "display_data" | "update_display_data":
            return [_result(content, main=False)]
        case "error":
            return [
                {
                    "type": "error",
                    "name": content["ename"],
                    "value": content["evalue"],
                    "traceback": "\n".join(content["traceback"]),
                }
            ]
    return []
