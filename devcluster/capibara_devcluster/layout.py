"""Where a cluster keeps what it owns: one folder for each cluster below the state folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capibara_devcluster.errors import DevclusterError

STATE_DIR_VARIABLE: Final = "CAPIBARA_STATE_DIR"
DEFAULT_NAME: Final = "capibara"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one cluster.

    Args:
        state_dir: absolute folder that may hold several clusters.
        name: DNS label of at most 32 characters.
    """

    state_dir: Path
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DevclusterError(
                f"{self.name!r} is no cluster name",
                hint="use at most 32 lower-case letters, digits and dashes",
            )

    @property
    def root(self) -> Path:
        """Everything of this cluster."""
        return self.state_dir / self.name

    @property
    def record(self) -> Path:
        """What `up` stored about the cluster."""
        return self.root / "cluster.json"

    @property
    def spec(self) -> Path:
        """What the supervisor is to run."""
        return self.root / "supervisor-spec.json"

    @property
    def health(self) -> Path:
        """What the supervisor sees: pids, restarts, readiness."""
        return self.root / "supervisor.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the components' kubeconfigs."""
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        """The data of etcd."""
        return self.root / "etcd"

    @property
    def node(self) -> Path:
        """What kubelet and containerd keep; the images in it outlive `down`."""
        return self.root / "node"

    @property
    def logs(self) -> Path:
        """One log file for each component."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """Requests seen by the API server, one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def env_file(self) -> Path:
        """The file to source: KUBECONFIG and PATH of the cluster that was last brought up here."""
        return self.state_dir / "env"

    def lock_file(self) -> Path:
        """Held by `up`, `down` and `load-image` so that only one of them works at a time."""
        return self.state_dir / f".{self.name}.lock"


def checkout() -> Path | None:
    """The checkout that this package is installed from, if it is an editable install."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def default_state_dir() -> Path:
    """`$CAPIBARA_STATE_DIR`, else `.capibara` in the checkout, else in the working folder."""
    if configured := os.environ.get(STATE_DIR_VARIABLE):
        return Path(configured).absolute()
    return (checkout() or Path.cwd()) / ".capibara"
