"""What an administrator may set: environment variables ``CAPIBARA_*``."""

import socket
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from capibara_operator.core.services.probing import parse_overrides

_PREFIX: Final = "CAPIBARA_"

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class SettingsError(Exception):
    """One line for each wrong value, with the variable's name."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT or :PORT, e.g. :8080 or 127.0.0.1:8080")
    if host.startswith("[") != host.endswith("]"):
        raise ValueError("an IPv6 address must stand in brackets, e.g. [::1]:8080")
    return value


def _overrides(value: str) -> str:
    parse_overrides(value)
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Workers = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """All settings, each ``CAPIBARA_`` plus the name in upper case."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    operator_namespace: str = Field("", max_length=63)
    """Where provider credentials and shared templates are. Absent: the pod's namespace, else
    capibara-system."""
    watch_namespaces: Names = ()
    """The namespaces that are served, comma-separated. Absent: all."""
    install_id: str = Field("default", min_length=1, max_length=63)
    """Tells several installations in one cluster apart, in the metadata of sandboxes."""
    cluster_id: str = Field("", max_length=128)
    """Tells this cluster apart in the metadata of sandboxes. Absent: the UID of kube-system."""
    kubeconfig: str = ""
    """Path. Absent: $KUBECONFIG, else the pod's service account, else ~/.kube/config."""
    kube_context: str = ""
    """Context of the kubeconfig. Absent: its current one."""

    metrics_bind_address: Annotated[str, AfterValidator(_address)] = ":8080"
    """Where /metrics, /healthz and /readyz are served. Port 0 takes a free one."""
    log_level: Annotated[Level, BeforeValidator(_upper)] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    log_format: Literal["json", "text"] = "json"
    """json or text."""

    run_workers: Workers = 32
    """SandboxRuns that are worked on at a time."""
    service_workers: Workers = 8
    """CapibaraServices that are worked on at a time."""
    template_workers: Workers = 2
    """SandboxTemplates that are worked on at a time."""
    provider_workers: Workers = 2
    """SandboxProviders that are worked on at a time."""
    resync_seconds: Seconds = 300.0
    """How often the memory is compared with a list of the API server."""
    drain_seconds: Seconds = 15.0
    """How long work under way may go on after SIGTERM; keep it below the pod's grace period."""

    probe_address_overrides: Annotated[str, AfterValidator(_overrides)] = ""
    """Where the endpoints of services are probed instead of at their pods, for an operator that
    runs outside of the pod network: NAMESPACE/SERVICE:PORT=IP:PORT, comma-separated."""

    def served_namespaces(self, operator_namespace: str) -> tuple[str, ...]:
        """The namespaces to list and watch; none means all."""
        if not self.watch_namespaces:
            return ()
        return tuple(dict.fromkeys((*self.watch_namespaces, operator_namespace)))

    @property
    def bind_host(self) -> str:
        """The host part of ``metrics_bind_address``; empty means all addresses."""
        return self.metrics_bind_address.rpartition(":")[0].strip("[]")

    @property
    def bind_port(self) -> int:
        """The port part of ``metrics_bind_address``."""
        return int(self.metrics_bind_address.rpartition(":")[2])

    @property
    def instance(self) -> str:
        """The name of this process in Events."""
        return f"capibara-operator-{socket.gethostname()}"


def load() -> Settings:
    """Read the environment; raises ``SettingsError``."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{_PREFIX}{'_'.join(str(part) for part in item['loc'][:1]).upper()}: {item['msg']}"
            f" (got {item['input']!r})"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
