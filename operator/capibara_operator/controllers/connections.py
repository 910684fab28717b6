"""The connections to the sandbox providers, by name of the SandboxProvider."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from capibara_operator.api.provider import CredentialsRef, SandboxProviderSpec
from capibara_operator.core.providers.status import credentials_missing, credentials_unreadable
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Manifest
from capibara_operator.ports.resources import SECRETS
from capibara_operator.ports.sandboxes import Endpoint, Fault, SandboxAPI, SandboxError
from capibara_operator.runtime.store import Store

Connect = Callable[[str, Endpoint], SandboxAPI]
"""Makes the client of a provider from its name and endpoint; does no I/O."""

_MAX_KEY_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class _Connection:
    version: tuple[str, int]
    endpoint: Endpoint
    api: SandboxAPI


class Connections:
    """Gives the client of a provider; an API key is read once, and again by ``refresh``."""

    def __init__(
        self, *, kube: KubeAPI, providers: Store, connect: Connect, operator_namespace: str
    ) -> None:
        self._kube = kube
        self._providers = providers
        self._connect = connect
        self._namespace = operator_namespace
        self._open: dict[str, _Connection] = {}

    async def __call__(self, name: str) -> SandboxAPI:
        """The client of the provider, as its spec is now.

        Raises ``SandboxError``: NOT_FOUND without such a provider, UNAUTHENTICATED without its
        API key, INVALID where its spec cannot be read; and ``KubeError``.
        """
        known, provider = self._open.get(name), self._providers.get(Key("", name))
        if known and provider and known.version == _version(provider):
            return known.api
        return await self.refresh(name)

    async def refresh(self, name: str) -> SandboxAPI:
        """The same, with the API key read anew; the client stays while nothing changed."""
        provider = self._providers.get(Key("", name))
        if provider is None:
            self._open.pop(name, None)
            raise SandboxError(
                Fault.NOT_FOUND, f"SandboxProvider {name!r} does not exist; create it"
            )
        endpoint = await self._endpoint(provider)
        known = self._open.get(name)
        api = known.api if known and known.endpoint == endpoint else self._connect(name, endpoint)
        self._open[name] = _Connection(_version(provider), endpoint, api)
        return api

    def forget(self, name: str) -> None:
        """Drop the client of a provider that is gone."""
        self._open.pop(name, None)

    async def aclose(self) -> None:
        """Wait for what the clients still have to undo."""
        for connection in self._open.values():
            await connection.api.aclose()

    async def _endpoint(self, provider: Manifest) -> Endpoint:
        try:
            spec = SandboxProviderSpec.model_validate(provider.get("spec") or {})
        except ValidationError as error:
            raise SandboxError(Fault.INVALID, _invalid(error)) from None
        return Endpoint(
            api_url=spec.api_url or "",
            sandbox_url=spec.sandbox_url or "",
            domain=spec.domain or "",
            api_key=await self._api_key(spec.credentials_secret_ref),
        )

    async def _api_key(self, ref: CredentialsRef) -> str:
        try:
            secret = await self._kube.get(SECRETS, Key(self._namespace, ref.name))
        except KubeError as error:
            if error.transient:
                raise
            message = credentials_unreadable(ref.name, self._namespace, error.reason)
            raise SandboxError(Fault.UNAUTHENTICATED, message) from None
        value = _decoded((secret or {}).get("data") or {}, ref.key)
        if not value:
            message = credentials_missing(
                ref.name, ref.key, self._namespace, found=secret is not None
            )
            raise SandboxError(Fault.UNAUTHENTICATED, message)
        return value


def _decoded(data: dict[str, str], key: str) -> str:
    try:
        text = base64.b64decode(data.get(key, ""), validate=True).decode("ascii").strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    # What is no header value would fail in the HTTP client, which might quote it.
    return text if text.isprintable() and len(text) <= _MAX_KEY_LENGTH else ""


def _version(provider: Manifest) -> tuple[str, int]:
    metadata = provider["metadata"]
    return metadata.get("uid", ""), metadata.get("generation", 0)


def _invalid(error: ValidationError) -> str:
    where = "; ".join(
        f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False)[:3]
    )
    return f"The spec could not be read ({where}). Correct it, or install the matching CRDs"
