"""process.Process: commands over Connect."""

import asyncio
import base64
import signal
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from capibara_sandboxd.guest import frames
from capibara_sandboxd.link import Conversation, GuestError, GuestLink, LinkError, raise_error

from . import connect

_OUTPUTS: Final = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}
_SIGNALS: Final = {
    "SIGNAL_SIGTERM": signal.SIGTERM,
    "SIGNAL_SIGKILL": signal.SIGKILL,
    "15": signal.SIGTERM,
    "9": signal.SIGKILL,
}


async def stream(request: web.Request, link: GuestLink, method: str) -> web.StreamResponse:
    """Start or Connect: follow a command to its end."""
    answer = connect.ServerStream(request)
    try:
        message = await connect.only_message(request)
        _refuse_terminal(message)
        fields: dict[str, Any] = {
            name: message[name] for name in ("process", "tag", "stdin") if name in message
        }
        deadline = connect.timeout_ms(request)
        if deadline and method == "start":
            fields["timeout_ms"] = deadline
        async with link.open(method, **fields) as talk:
            # A follower's own deadline ends its stream, not the command.
            limit = deadline / 1000 if deadline and method == "connect" else None
            async with asyncio.timeout(limit):
                await _relay(talk, answer, connect.keepalive_seconds(request))
    except TimeoutError:
        expired = GuestError("deadline_exceeded", "the stream's timeout was reached")
        return await answer.end(expired)
    except (GuestError, LinkError) as error:
        return await answer.end(error)
    return await answer.end()


def _refuse_terminal(message: Mapping[str, Any]) -> None:
    if message.get("pty"):
        raise GuestError("unimplemented", "terminals (pty) are not in this version of sandboxd")


async def _relay(talk: Conversation, answer: connect.ServerStream, interval: float) -> None:
    reading = asyncio.ensure_future(talk.read())
    try:
        while True:
            done, _ = await asyncio.wait((reading,), timeout=interval)
            if not done:
                await answer.send({"event": {"keepalive": {}}})
                continue
            frame = reading.result()
            if frame is None:
                raise LinkError("the connection to sandbox ended before the stream completed")
            event = _event(frame)
            await answer.send({"event": event})
            if "end" in event:
                return
            reading = asyncio.ensure_future(talk.read())
    finally:
        reading.cancel()


def _event(frame: frames.Frame) -> dict[str, Any]:
    """A ``ProcessEvent`` out of a frame of the agent."""
    output = _OUTPUTS.get(frame.kind)
    if output:
        return {"data": {output: base64.b64encode(frame.payload).decode()}}
    try:
        value = raise_error(frames.parse_json(frame))
    except frames.FrameError as error:
        raise LinkError(f"the sandbox's agent sent nonsense: {error}") from error
    for name in ("start", "end"):
        if isinstance(value.get(name), dict):
            return {name: value[name]}
    raise LinkError("the sandbox's agent sent an unknown event")


async def _list(link: GuestLink, _: Mapping[str, Any]) -> dict[str, Any]:
    return await link.call("processes")


async def _send_input(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    data = message.get("input") or {}
    if "stdin" not in data:
        raise GuestError("unimplemented", "only stdin input is in this version of sandboxd")
    return await link.call("input", process=message.get("process"), stdin=data["stdin"])


async def _close_stdin(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    return await link.call("close_stdin", process=message.get("process"))


async def _send_signal(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    asked = str(message.get("signal"))
    number = _SIGNALS.get(asked)
    if number is None:
        raise GuestError("invalid_argument", f"signal {asked!r} is not SIGTERM or SIGKILL")
    return await link.call("signal", process=message.get("process"), number=int(number))


async def _update(_link: GuestLink, _: Mapping[str, Any]) -> dict[str, Any]:
    raise GuestError("unimplemented", "terminals (pty) are not in this version of sandboxd")


UNARY: Final = {
    "List": _list,
    "SendInput": _send_input,
    "CloseStdin": _close_stdin,
    "SendSignal": _send_signal,
    "Update": _update,
}


async def stream_input(request: web.Request, link: GuestLink) -> web.StreamResponse:
    """StreamInput: ordered input from a client stream."""
    answer = connect.ServerStream(request)
    process: Any = None
    try:
        async for message in connect.messages(request.content):
            event = message.get("event") or message
            if "start" in event:
                process = (event["start"] or {}).get("process")
            elif "data" in event:
                fields = {"process": process, "input": (event["data"] or {}).get("input")}
                await _send_input(link, fields)
    except (GuestError, LinkError) as error:
        return await answer.end(error)
    await answer.send({})
    return await answer.end()
