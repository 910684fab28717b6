"""Logging in as a pod: the token on the disk is replaced every hour."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.aio.config import incluster_config

from capibara_operator.adapters import kube_session
from capibara_operator.adapters.kube_session import Credentials, LoginError, connect


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_text("certificate")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return token


async def logged_in() -> Credentials:
    credentials = Credentials(load=kube_session._load_in_cluster)
    await credentials.refresh()
    return credentials


async def test_a_rotated_service_account_token_is_taken_up(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = await logged_in()
    assert credentials.configuration.host == "https://10.96.0.1:443"
    assert (await credentials.authorization()).lower() == "bearer first"
    token_file.write_text("second")  # noqa: ASYNC240
    assert (await credentials.authorization()).lower() == "bearer first", "not with each request"
    monkeypatch.setattr(kube_session, "_REFRESH_SECONDS", 0.0)
    assert (await credentials.authorization()).lower() == "bearer second"


async def test_old_credentials_stay_when_they_cannot_be_read_anew(token_file: Path) -> None:
    credentials = await logged_in()
    token_file.unlink()  # noqa: ASYNC240
    await credentials.refresh()
    assert (await credentials.authorization()).lower() == "bearer first"


async def test_a_kubeconfig_that_is_being_rewritten_ends_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        """
        {apiVersion: v1, kind: Config, current-context: c,
         contexts: [{name: c, context: {cluster: c, user: u}}],
         clusters: [{name: c, cluster: {server: "https://10.96.0.1:443"}}],
         users: [{name: u, user: {token: first}}]}
        """
    )
    credentials = Credentials(load=kube_session._kubeconfig_loader(str(config), ""))
    await credentials.refresh()
    for broken in ("", "apiVersion: [", None):
        config.unlink() if broken is None else config.write_text(broken)
        await credentials.refresh()
        assert (await credentials.authorization()).lower() == "bearer first"


async def test_a_pod_without_a_token_is_told_so(token_file: Path) -> None:
    token_file.unlink()  # noqa: ASYNC240
    with pytest.raises(LoginError, match="token file does not exist"):
        await connect()


async def test_nowhere_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LoginError, match="set KUBECONFIG"):
        await connect()
