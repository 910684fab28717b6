"""Errors of the agent's operations, named as in the Connect protocol."""

import errno
from typing import Final

_CODES: Final = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "invalid_argument",
    errno.ENXIO: "invalid_argument",
    errno.EISDIR: "invalid_argument",
    errno.EEXIST: "already_exists",
    errno.ENOTEMPTY: "failed_precondition",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "resource_exhausted",
    errno.EDQUOT: "resource_exhausted",
    errno.EFBIG: "resource_exhausted",
    errno.EMFILE: "resource_exhausted",
    errno.EAGAIN: "resource_exhausted",
    errno.ENOMEM: "resource_exhausted",
    errno.ENAMETOOLONG: "invalid_argument",
    errno.ELOOP: "invalid_argument",
}


class OpError(Exception):
    """An operation failed: a Connect code and a message for the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def from_os_error(error: OSError, what: str) -> OpError:
    """Name an operating system error; ``what`` is what was tried."""
    code = _CODES.get(error.errno or 0, "internal")
    return OpError(code, f"{what}: {error.strerror or error}")
