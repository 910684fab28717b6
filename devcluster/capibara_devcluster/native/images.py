"""Loading images into the node's containerd."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from capibara_devcluster import archives
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.native import archive, config, node
from capibara_devcluster.plan import Plan
from capibara_devcluster.process import Identity

_CTR_TIMEOUT_SECONDS: Final = 600
_NAMESPACE: Final = "k8s.io"


def load_pause(plan: Plan, supervisor: Identity) -> None:
    """Make and load the image that holds a pod's namespaces open, if it is not there yet."""
    target = plan.layout.root / "pause.tar"
    program = plan.tools / "pause"
    archive.write_image(
        target,
        reference=config.PAUSE_IMAGE,
        programs={"/pause": program},
        entrypoint=["/pause"],
    )
    load(target, tools=plan.tools, supervisor=supervisor)


def load(source: Path, *, tools: Path, supervisor: Identity) -> list[str]:
    """Import an archive or OCI layout folder; returns the names of images that were not there."""
    with tempfile.TemporaryDirectory(prefix="capibara-image-") as scratch:
        archived = archives.as_file(source, Path(scratch))
        wanted = archives.named_digests(archived)
        before = _present(tools, supervisor)
        if wanted and all(before.get(name) == digest for name, digest in wanted.items()):
            return []
        _ctr(tools, supervisor, "images", "import", str(archived.absolute()))
    after = _present(tools, supervisor)
    # The CRI plugin adds each image once more under its digest.
    named = {name: digest for name, digest in after.items() if not name.startswith("sha256:")}
    return sorted(name for name, digest in named.items() if before.get(name) != digest)


def _present(tools: Path, supervisor: Identity) -> dict[str, str]:
    listed = _ctr(tools, supervisor, "images", "list")
    rows = [line.split() for line in listed.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def _ctr(tools: Path, supervisor: Identity, *args: str) -> str:
    socket = node.socket_on_host(supervisor.pid)
    argv: Sequence[str] = (str(tools / "ctr"), f"--address={socket}", f"-n={_NAMESPACE}", *args)
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=_CTR_TIMEOUT_SECONDS
    )
    if done.returncode != 0:
        raise DevclusterError(
            f"containerd refused `{' '.join(args)}`: {done.stderr.strip()}",
            hint="check the archive (docker save, oci-archive), and `capibara-devcluster status`",
        )
    return done.stdout
