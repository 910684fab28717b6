"""How a build reaches the package registries as its host does: certificate bundle and pip settings.

Both are mounted for the length of a RUN step; nothing of them stays in an image.
"""

import configparser
import os
import subprocess
import sys
from pathlib import Path

_BUNDLE_IN_BUILD = "/etc/host-ca.pem"
_BUNDLE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
_PIP_TIMEOUT_SECONDS = 60


def host_bundle() -> Path | None:
    """The certificate authorities that this host trusts, as a PEM file; None when none is found."""
    named = [os.environ[name] for name in _BUNDLE_VARIABLES if os.environ.get(name)]
    found = (Path(path) for path in (*named, *_SYSTEM_BUNDLES))
    return next((path for path in found if path.is_file()), None)


def _pip_settings() -> dict[str, str]:
    """The host's global pip settings (index, proxy, ...), without paths of this host."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=_PIP_TIMEOUT_SECONDS,
        check=False,
    ).stdout
    settings = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        scope, _, key = name.partition(".")
        wanted = key in {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout"}
        if separator and wanted and scope in {"global", "install", ":env:"}:
            settings[key] = value.strip("'\"")
    return settings


def build_volumes(folder: Path) -> list[str]:
    """Write the settings of a build into ``folder``; return ``HOST:BUILD:ro`` volumes."""
    settings = _pip_settings()
    volumes = []
    if bundle := host_bundle():
        settings["cert"] = _BUNDLE_IN_BUILD
        volumes.append(f"{bundle.resolve()}:{_BUNDLE_IN_BUILD}:ro")
    config = configparser.RawConfigParser()
    config["global"] = settings
    path = folder / "pip.conf"
    with path.open("w", encoding="utf-8") as file:
        config.write(file)
    return [*volumes, f"{path.resolve()}:/etc/pip.conf:ro"]
