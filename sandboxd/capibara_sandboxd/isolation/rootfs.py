"""What a sandbox sees as its root: the host's programs read-only, the rest made here."""

import compileall
import ctypes
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capibara_sandboxd import guest

USER: Final = "user"
UID: Final = 1000
HOME: Final = "/home/user"
GUEST_DIR: Final = "/opt/capibara-guest"
_CLONE_NEWNS: Final = 0x20000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_FONT_CACHE_SECONDS: Final = 120

_ETC_FILES: Final = {
    "passwd": f"root:x:0:0:root:/root:/bin/bash\n{USER}:x:{UID}:{UID}:{USER}:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "resolv.conf": "",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # /etc/profile of the distribution would put its own PATH over ours in every login shell.
    "profile": "umask 022\n",
    "os-release": "",
}
_ETC_OF_HOST: Final = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl",
    "ca-certificates",
    "fonts",
    "localtime",
    "mime.types",
    "services",
    "protocols",
    "inputrc",
    "terminfo",
)
_TOP_LEVEL: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Mount arguments shared by all sandboxes, and where Python is in them."""

    mounts: tuple[str, ...]
    python: str
    path: str
    site_packages: tuple[str, ...]
    skeleton: Path


def _traversable(path: Path) -> bool:
    """Whether any user can reach a path: each parent lets others pass."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def enter_private_mounts() -> None:
    """Give this process a mount namespace of its own; its mounts vanish with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no private mount namespace")


def _reachable(source: Path, place: Path) -> Path:
    """A place from which an unprivileged uid can bind ``source``."""
    if os.geteuid() != 0 or _traversable(source):
        return source
    place.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_BIND | _MS_REC
    if libc.mount(os.fsencode(source), os.fsencode(place), None, flags, None):
        raise OSError(ctypes.get_errno(), f"cannot bind {source} to {place}")
    return place


def _python_mounts(state_dir: Path) -> list[str]:
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(sys.prefix)}
    arguments: list[str] = []
    for number, prefix in enumerate(sorted(prefixes)):
        if prefix.is_relative_to("/usr"):
            continue
        source = _reachable(prefix, state_dir / "prefixes" / str(number))
        arguments += ["--ro-bind", str(source), str(prefix)]
    return arguments


def _etc_mounts(state_dir: Path) -> list[str]:
    place = state_dir / "etc"
    place.mkdir(exist_ok=True)
    arguments = ["--dir", "/etc"]
    for name, text in _ETC_FILES.items():
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o644)
        arguments += ["--ro-bind", str(place / name), f"/etc/{name}"]
    for name in _ETC_OF_HOST:
        source = Path("/etc") / name
        if source.exists():
            arguments += ["--ro-bind", str(source.resolve()), f"/etc/{name}"]
    arguments += ["--symlink", "/proc/self/mounts", "/etc/mtab"]
    return arguments


def _system_mounts() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _TOP_LEVEL:
        path = Path("/") / name
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    return arguments


def _site_packages() -> tuple[str, ...]:
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return tuple(dict.fromkeys((*paths, *site.getsitepackages())))


def _guest_mounts(state_dir: Path) -> list[str]:
    """The agent's own files: a copy, so that the checkout or venv path does not matter."""
    source = Path(guest.__file__).parent
    place = state_dir / "guest"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    compileall.compile_dir(place, quiet=1)
    return ["--ro-bind", str(place), f"{GUEST_DIR}/guest"]


def _skeleton(state_dir: Path) -> Path:
    """Files that every home starts with: matplotlib's font list, which takes seconds to build."""
    skeleton = state_dir / "skeleton"
    cache = skeleton / ".cache" / "matplotlib"
    if not cache.is_dir():
        cache.mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-I", "-c", "import matplotlib.font_manager"],
            env={"MPLCONFIGDIR": str(cache), "HOME": str(skeleton), "PATH": os.defpath},
            check=False,
            capture_output=True,
            timeout=_FONT_CACHE_SECONDS,
        )
    return skeleton


def prepare(state_dir: Path) -> Rootfs:
    """Make the shared parts of all sandboxes' roots below ``state_dir``."""
    if os.geteuid() == 0:
        enter_private_mounts()
    mounts = (
        *_system_mounts(),
        *_etc_mounts(state_dir),
        *_python_mounts(state_dir),
        *_guest_mounts(state_dir),
    )
    binaries = str(Path(sys.prefix) / "bin")
    path = (
        f"{HOME}/.local/bin:{binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    python = str(Path(binaries) / "python3")
    return Rootfs(mounts, python, path, _site_packages(), _skeleton(state_dir))
