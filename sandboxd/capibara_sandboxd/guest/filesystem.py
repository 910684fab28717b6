"""Files of the sandbox, touched with the rights of its user only."""

import datetime as dt
import errno
import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .faults import OpError, from_os_error

_MAX_ENTRIES: Final = 100_000


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _file_type(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "FILE_TYPE_DIRECTORY"
    if stat.S_ISREG(mode):
        return "FILE_TYPE_FILE"
    return "FILE_TYPE_UNSPECIFIED"


def entry(path: str) -> dict[str, Any]:
    """One file as an ``EntryInfo``; a link has the type of its target."""
    info = os.lstat(path)
    link = stat.S_ISLNK(info.st_mode)
    target = info
    if link:
        try:
            target = Path(path).stat()
        except OSError:
            target = info
    modified = dt.datetime.fromtimestamp(info.st_mtime, dt.UTC)
    found: dict[str, Any] = {
        "name": os.path.basename(path) or "/",  # noqa: PTH119
        "type": _file_type(target.st_mode),
        "path": path,
        "size": str(info.st_size),
        "mode": stat.S_IMODE(info.st_mode),
        "permissions": stat.filemode(info.st_mode),
        "owner": _owner(info.st_uid),
        "group": _group(info.st_gid),
        "modifiedTime": modified.isoformat().replace("+00:00", "Z"),
    }
    if link:
        found["symlinkTarget"] = os.path.realpath(path)
    return found


def stat_path(path: str) -> dict[str, Any]:
    """Describe one file."""
    try:
        return entry(path)
    except OSError as error:
        raise from_os_error(error, f"path '{path}'") from error


def _walk(path: str, depth: int) -> Iterator[str]:
    for child in sorted(os.scandir(path), key=lambda found: found.name):
        yield child.path
        if depth > 1 and child.is_dir(follow_symlinks=False):
            yield from _walk(child.path, depth - 1)


def list_dir(path: str, depth: int) -> list[dict[str, Any]]:
    """Describe what a directory holds, down to ``depth`` levels (0 counts as 1)."""
    entries: list[dict[str, Any]] = []
    try:
        for child in _walk(path, depth or 1):
            try:
                entries.append(entry(child))
            except FileNotFoundError:  # gone since it was listed
                continue
            if len(entries) > _MAX_ENTRIES:
                raise OpError("resource_exhausted", f"'{path}' has over {_MAX_ENTRIES} entries")
    except OSError as error:
        raise from_os_error(error, f"directory '{path}'") from error
    return entries


def make_dir(path: str) -> dict[str, Any]:
    """Create a directory and its parents."""
    try:
        Path(path).mkdir(parents=True)
    except OSError as error:
        raise from_os_error(error, f"directory '{path}'") from error
    return entry(path)


def move(source: str, destination: str) -> dict[str, Any]:
    """Rename a file or directory; parents of the destination are created."""
    try:
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        try:
            Path(source).replace(destination)
        except OSError as error:
            if error.errno != errno.EXDEV:  # /tmp and /home/user are mounts of their own
                raise
            shutil.move(source, destination)
    except OSError as error:
        raise from_os_error(error, f"cannot move '{source}' to '{destination}'") from error
    return entry(destination)


def remove(path: str) -> None:
    """Remove a file or a whole directory; a missing one is no error."""
    target = Path(path)
    try:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(path)
        else:
            target.unlink(missing_ok=True)
    except OSError as error:
        raise from_os_error(error, f"cannot remove '{path}'") from error


def open_for_reading(path: str) -> int:
    """Open a regular file; returns a file descriptor."""
    try:
        # Non-blocking: opening a pipe that nobody writes to would hold the agent up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise OpError("not_found", f"path '{path}' does not exist") from error
    except OSError as error:
        raise from_os_error(error, f"path '{path}'") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    kind = "a directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "no regular file"
    os.close(descriptor)
    raise OpError("invalid_argument", f"path '{path}' is {kind}")


def open_for_writing(path: str) -> int:
    """Open a file to be written from its start; parents are created."""
    if Path(path).is_dir():
        raise OpError("invalid_argument", f"path '{path}' is a directory")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(path, flags, 0o644)
    except OSError as error:
        raise from_os_error(error, f"cannot write '{path}'") from error


def write_all(descriptor: int, data: bytes, path: str) -> None:
    """Write a piece of a file whole."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise from_os_error(error, f"cannot write '{path}'") from error


def disk_usage(path: str) -> dict[str, int]:
    """Bytes used and in total on the file system of ``path``."""
    usage = shutil.disk_usage(path)
    return {"disk_used": usage.used, "disk_total": usage.total}
