"""Connections to the API server: one pool and one set of credentials for the whole process."""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from capibara_operator import metrics
from capibara_operator.version import VERSION

_logger = logging.getLogger(__name__)

_loaders: Any = kube_config  # its functions have no annotations

_REFRESH_SECONDS: Final = 60.0
_LOGIN_DEADLINE_SECONDS: Final = 30.0
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class LoginError(Exception):
    """There is no usable kubeconfig and no service account."""


@dataclass(slots=True)
class Credentials:
    """What proves who we are; read anew every minute where it can expire, and after a 401."""

    load: Callable[[Configuration], Awaitable[bool]]
    configuration: Configuration = field(default_factory=Configuration)
    expiring: bool = True
    tls: ssl.SSLContext | None = None
    _loaded_at: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def authorization(self) -> str:
        """The ``Authorization`` header, empty for client certificates."""
        if self.expiring and time.monotonic() - self._loaded_at > _REFRESH_SECONDS:
            await self.refresh(seen=self._loaded_at)
        return str(self.configuration.api_key.get("BearerToken", ""))

    async def refresh(self, *, seen: float = 0.0) -> None:
        """Load everything anew, unless somebody else has done so since ``seen``."""
        async with self._lock:
            if seen and self._loaded_at > seen:
                return
            try:
                async with asyncio.timeout(_LOGIN_DEADLINE_SECONDS):
                    self.expiring = await self.load(self.configuration)
            except (LoginError, kube_config.ConfigException, OSError, TimeoutError) as error:
                if not self._loaded_at and isinstance(error, LoginError):
                    raise
                if not self._loaded_at:
                    raise LoginError(f"cannot log in to the API server: {error}") from error
                # Old credentials may still be good; the next request tells.
                _logger.warning("cannot refresh the credentials", extra={"error": str(error)})
            self._loaded_at = time.monotonic()
            if self.tls is not None:
                _load_client_certificate(self.tls, self.configuration)
                _remove_copies()

    @property
    def loaded_at(self) -> float:
        """When they were loaded last, in seconds of the monotonic clock."""
        return self._loaded_at


class KubeSession:
    """The connection pool to one API server."""

    def __init__(self, credentials: Credentials) -> None:
        configuration = credentials.configuration
        self.server: str = configuration.host.rstrip("/")
        self.watches: dict[str, float] = {}
        """When a watch was opened last, by URL path, in seconds of the monotonic clock."""
        self.watch_opened = asyncio.Event()
        self._credentials = credentials
        self._host = urlsplit(self.server).netloc
        self._server_name: str | None = configuration.tls_server_name
        self._proxy: str | None = configuration.proxy
        tls: ssl.SSLContext | bool = True
        if self.server.startswith("https"):
            tls = credentials.tls = _tls_context(configuration)
        _remove_copies()
        # Watches occupy a connection each; the API server's own limits are the limit.
        self._connector = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=60)

    def session(self) -> aiohttp.ClientSession:
        """A session over the shared pool; closing it leaves the pool open."""
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers={"User-Agent": f"capibara-operator/{VERSION}"},
            middlewares=(self._send,),
            proxy=self._proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        loaded_at = self._credentials.loaded_at
        response = await self._send_once(request, handler)
        if response.status == 401 and _replayable(request):
            await self._credentials.refresh(seen=loaded_at)
            response.release()
            response = await self._send_once(request, handler)
        return response

    async def _send_once(
        self, request: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if authorization := await self._credentials.authorization():
            request.headers["Authorization"] = authorization
        if self._server_name:
            request.server_hostname = self._server_name
        started = time.perf_counter()
        code = "<error>"
        try:
            response = await handler(request)
            code = str(response.status)
        finally:
            metrics.REST_REQUESTS.labels(code, request.method, self._host).inc()
            metrics.REST_SECONDS.labels(request.method, self._host).observe(
                time.perf_counter() - started
            )
        if response.status == 200 and request.url.query.get("watch") == "true":
            self.watches[request.url.path] = time.monotonic()
            self.watch_opened.set()
        return response


async def connect(*, kubeconfig: str = "", context: str = "") -> KubeSession:
    """Log in: with ``kubeconfig``, else ``$KUBECONFIG``, else in the cluster, else ``~/.kube``.

    Raises ``LoginError`` with what was tried.
    """
    explicit = kubeconfig or os.environ.get("KUBECONFIG", "")
    default = Path.home() / ".kube" / "config"
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    if not explicit and in_cluster:
        credentials = Credentials(load=_load_in_cluster)
    elif explicit or default.exists():
        credentials = Credentials(load=_kubeconfig_loader(explicit or str(default), context))
    else:
        raise LoginError(
            "cannot log in to the API server: this is not a pod, KUBECONFIG is not set and "
            f"{default} does not exist; set KUBECONFIG to the path of a kubeconfig file"
        )
    await credentials.refresh()
    return KubeSession(credentials)


def own_namespace() -> str:
    """The namespace of the pod that this runs in; empty outside of a cluster."""
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


async def _load_in_cluster(configuration: Configuration) -> bool:
    _loaders.load_incluster_config(configuration, try_refresh_token=False)
    return True


def _kubeconfig_loader(paths: str, context: str) -> Callable[[Configuration], Awaitable[bool]]:
    async def load(configuration: Configuration) -> bool:
        if not _exists(paths):
            raise LoginError(
                f"cannot log in to the API server: the kubeconfig {paths} does not exist; "
                "set KUBECONFIG to the path of a kubeconfig file"
            )
        try:
            loader = await _loaders.load_kube_config(
                config_file=paths,
                context=context or None,
                client_configuration=configuration,
                persist_config=False,
            )
        except kube_config.ConfigException:
            raise
        except Exception as error:
            # The loader lets whatever the file's contents lead to escape.
            raise LoginError(f"the kubeconfig {paths} is not valid: {error!r}") from error
        return _expires(loader)

    return load


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


def _expires(loader: Any) -> bool:
    # The loader does not tell how it found the token; its user entry does.
    user: Any = getattr(loader, "_user", None)
    return bool(user) and any(kind in user for kind in ("exec", "tokenFile", "auth-provider"))


def _tls_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_client_certificate(context, configuration)
    return context


def _load_client_certificate(context: ssl.SSLContext, configuration: Configuration) -> None:
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)


def _remove_copies() -> None:
    """Delete the loader's copies of keys that stand inside a kubeconfig.

    The loader does so at the interpreter's exit only, which a killed process never reaches.
    """
    _loaders.kube_config._cleanup_temp_files()  # noqa: SLF001 - it has no public name


def _replayable(request: ClientRequest) -> bool:
    body = request.body
    return body is None or not body or isinstance(body, aiohttp.BytesPayload)
