from __future__ import annotations

import os
import subprocess
import sys

import pytest

from capibara_operator.settings import Settings, SettingsError, load
from capibara_operator.version import VERSION


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CAPIBARA_"):
            monkeypatch.delenv(name)


def test_defaults_serve_everything_on_port_8080() -> None:
    settings = load()
    assert settings.watch_namespaces == ()
    assert settings.served_namespaces("capibara-system") == ()
    assert (settings.bind_host, settings.bind_port) == ("", 8080)
    assert (settings.log_level, settings.log_format) == ("INFO", "json")


def test_the_operators_namespace_is_served_beside_the_chosen_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPIBARA_WATCH_NAMESPACES", "a, b,,a")
    assert load().served_namespaces("b") == ("a", "b")
    assert load().served_namespaces("system") == ("a", "b", "system")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(":0", "", 0), ("127.0.0.1:9090", "127.0.0.1", 9090), ("[::1]:8081", "::1", 8081)],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int) -> None:
    monkeypatch.setenv("CAPIBARA_METRICS_BIND_ADDRESS", text)
    assert (load().bind_host, load().bind_port) == (host, port)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METRICS_BIND_ADDRESS", "8080"),
        ("METRICS_BIND_ADDRESS", ":99999"),
        ("METRICS_BIND_ADDRESS", "[::1:80"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("RUN_WORKERS", "0"),
        ("RESYNC_SECONDS", "-1"),
        ("DRAIN_SECONDS", "soon"),
        ("INSTALL_ID", ""),
        ("PROBE_ADDRESS_OVERRIDES", "nonsense"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"CAPIBARA_{name}", value)
    with pytest.raises(SettingsError, match=f"^CAPIBARA_{name}: "):
        load()


def test_all_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIBARA_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("CAPIBARA_RUN_WORKERS", "many")
    with pytest.raises(SettingsError) as caught:
        load()
    assert len(str(caught.value).splitlines()) == 2


def test_variables_that_kubernetes_injects_for_our_own_services_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPERATOR", "OPERATOR_METRICS", "METRICS", "SANDBOXD"):
        monkeypatch.setenv(f"CAPIBARA_{name}_PORT", "tcp://10.96.0.7:8080")
        monkeypatch.setenv(f"CAPIBARA_{name}_SERVICE_HOST", "10.96.0.7")
    load()


def test_help_names_every_variable_and_version_tells_the_version() -> None:
    page = _run("--help")
    assert all(f"CAPIBARA_{name.upper()}" in page for name in Settings.model_fields)
    assert VERSION in _run("--version")


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "capibara_operator", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
