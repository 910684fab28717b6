"""Settings of the sandbox that every part of the agent shares."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from .faults import OpError


@dataclass(slots=True)
class Session:
    """Who the sandbox's processes are and what environment they get."""

    home: str
    user: str
    path: str
    python: str
    site_packages: tuple[str, ...]
    envs: dict[str, str] = field(default_factory=dict)

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Environment of a new process; later ones win: built-in, sandbox's, request's."""
        base = {
            "PATH": self.path,
            "HOME": self.home,
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "E2B_SANDBOX": "true",
        }
        return base | self.envs | (extra or {})

    def resolve(self, path: str) -> str:
        """Absolute, normalised path; relative ones and ``~`` start at the user's home."""
        if "\0" in path:
            raise OpError("invalid_argument", "a path cannot contain a null byte")
        if path == "~" or path.startswith("~/"):
            path = self.home + path[1:]
        return os.path.normpath(os.path.join(self.home, path))  # noqa: PTH118

    def directory(self, path: str | None) -> str:
        """A working directory that is there; the user's home when none is asked for."""
        found = self.resolve(path or self.home)
        if not Path(found).is_dir():
            raise OpError("invalid_argument", f"cwd '{found}' does not exist or is no directory")
        return found
