"""The state directory: one daemon at a time."""

import fcntl
import os
from pathlib import Path

from .config import ConfigurationError


def _check_owner(state_dir: Path) -> None:
    """Refuse a folder that another user made or can exchange: we execute programs out of it."""
    place = state_dir.resolve()
    for path, owners in ((place, {os.geteuid()}), (place.parent, {os.geteuid(), 0})):
        if path.stat().st_uid not in owners:
            raise ConfigurationError(
                f"{path} belongs to another user (uid {path.stat().st_uid}), so the state "
                f"directory {state_dir} cannot be trusted; choose another with --state-dir"
            )


def lock(state_dir: Path) -> int:
    """Make the directory and hold it; returns a descriptor that keeps the lock while open."""
    try:
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        _check_owner(state_dir)
        state_dir.chmod(0o711)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the state directory {state_dir}: {error.strerror}; "
            "choose another with --state-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"another sandboxd uses the state directory {state_dir}; "
            "stop it or choose another with --state-dir"
        ) from error
    return descriptor
