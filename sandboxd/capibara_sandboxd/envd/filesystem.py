"""filesystem.Filesystem: unary calls over Connect."""

from collections.abc import Mapping
from typing import Any, Final

from capibara_sandboxd.link import GuestError, GuestLink


def _path(message: Mapping[str, Any], name: str = "path") -> str:
    value = message.get(name, "")
    if not isinstance(value, str):
        raise GuestError("invalid_argument", f"{name} must be a string")
    return value


async def _stat(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    return await link.call("stat", path=_path(message))


async def _make_dir(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    return await link.call("make_dir", path=_path(message))


async def _move(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    source, destination = _path(message, "source"), _path(message, "destination")
    return await link.call("move", source=source, destination=destination)


async def _list_dir(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    depth = message.get("depth") or 0
    if not isinstance(depth, int) or depth < 0:
        raise GuestError("invalid_argument", "depth must be 0 or more")
    return await link.call("list_dir", path=_path(message), depth=depth)


async def _remove(link: GuestLink, message: Mapping[str, Any]) -> dict[str, Any]:
    return await link.call("remove", path=_path(message))


async def _watch(_link: GuestLink, _: Mapping[str, Any]) -> dict[str, Any]:
    raise GuestError("unimplemented", "watching directories is not in this version of sandboxd")


UNARY: Final = {
    "Stat": _stat,
    "MakeDir": _make_dir,
    "Move": _move,
    "ListDir": _list_dir,
    "Remove": _remove,
    "CreateWatcher": _watch,
    "GetWatcherEvents": _watch,
    "RemoveWatcher": _watch,
}
