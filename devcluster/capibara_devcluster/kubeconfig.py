"""Kubeconfig files with the credentials inside."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml


def render(*, cluster: str, server: str, authority: Path, certificate: Path, key: Path) -> str:
    """A kubeconfig for one cluster and one user.

    Args:
        cluster: name of the cluster, of its context and of its user.
        server: URL of the API server.
        authority: certificate of the authority that signed the server's certificate.
        certificate: client certificate.
        key: private key of the client certificate.
    """
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {"server": server, "certificate-authority-data": _data(authority)},
                }
            ],
            "users": [
                {
                    "name": cluster,
                    "user": {
                        "client-certificate-data": _data(certificate),
                        "client-key-data": _data(key),
                    },
                }
            ],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        },
        sort_keys=False,
    )


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
