"""``ports.kube.KubeAPI`` over one shared aiohttp session."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from capibara_operator import metrics
from capibara_operator.adapters.kube_session import KubeSession, LoginError
from capibara_operator.api.common import FIELD_MANAGER
from capibara_operator.ports.kube import Key, KubeError, Manifest, Resource

_REQUEST_SECONDS: Final = 10.0
_LIST_SECONDS: Final = 60.0
_PAGE_SIZE: Final = 500
_BACKOFFS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_LONGEST_RETRY_AFTER: Final = 10.0

_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class _Call:
    """One request; ``repeatable`` if sending it twice is the same as sending it once."""

    method: str
    url: URL
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    seconds: float = _REQUEST_SECONDS
    repeatable: bool = True


class KubeClient:
    """Requests to the API server, each with a deadline and retries where they are safe.

    Retried with jittered back-off: 429 (after its Retry-After), and for verbs that may be repeated
    5xx and lost connections.
    """

    def __init__(self, session: KubeSession) -> None:
        self.server = session.server
        self._http = session.session()

    async def aclose(self) -> None:
        """Close the session; the pool belongs to whoever made it."""
        await self._http.close()

    async def get(self, resource: Resource, key: Key) -> Manifest | None:
        """Read one object from etcd; None when there is none."""
        try:
            return await self._send(_Call("GET", self._url(resource, key.namespace, key.name)))
        except KubeError as error:
            # A missing kind or namespace is no missing object.
            if error.status == HTTPStatus.NOT_FOUND and error.details.get("name") == key.name:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> Sequence[Manifest]:
        """List objects, all pages; with ``metadata_only`` as PartialObjectMetadata."""
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {name: value for name, value in selectors.items() if value}
        url = self._url(resource, namespace)
        accept = _METADATA_LIST if metadata_only else "application/json"
        try:
            return await self._pages(resource, url, query, accept)
        except KubeError as error:
            if error.status != HTTPStatus.GONE:
                raise
            # The continue token outlived its snapshot: begin again.
            return await self._pages(resource, url, query, accept)

    async def create(self, resource: Resource, obj: Manifest) -> Manifest:
        """POST a new object; ``metadata.namespace`` says where."""
        url = self._url(resource, obj["metadata"].get("namespace", ""))
        url = url.with_query(fieldManager=FIELD_MANAGER)
        return await self._send(_Call("POST", url, _encode(obj), repeatable=False))

    async def apply(self, resource: Resource, obj: Manifest) -> Manifest:
        """Server-side apply with our field manager, forced."""
        metadata = obj["metadata"]
        url = self._url(resource, metadata.get("namespace", ""), metadata["name"])
        url = url.with_query(fieldManager=FIELD_MANAGER, force="true")
        # JSON is YAML, and the JSON of apply patches is refused under any other name.
        return await self._send(_Call("PATCH", url, _encode(obj), _APPLY_PATCH))

    async def patch(
        self, resource: Resource, key: Key, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest | None:
        """JSON merge patch; None when the object is gone."""
        url = self._url(resource, key.namespace, key.name, subresource)
        url = url.with_query(fieldManager=FIELD_MANAGER)
        try:
            return await self._send(_Call("PATCH", url, _encode(body), _MERGE_PATCH))
        except KubeError as error:
            if error.status == HTTPStatus.NOT_FOUND and error.details.get("name") == key.name:
                return None
            raise

    async def delete(self, resource: Resource, key: Key, *, uid: str = "") -> bool:
        """Delete in the background; False when it was gone. ``uid`` is a precondition."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        url = self._url(resource, key.namespace, key.name)
        try:
            await self._send(_Call("DELETE", url, _encode(options)))
        except KubeError as error:
            # Conflict: it is another object of the same name by now.
            if error.status == HTTPStatus.NOT_FOUND or (uid and error.conflict):
                return False
            raise
        return True

    def _url(
        self, resource: Resource, namespace: str = "", name: str = "", subresource: str = ""
    ) -> URL:
        root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
        scope = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
        rest = "".join(f"/{part}" for part in (resource.plural, name, subresource) if part)
        return URL(f"{self.server}{root}{scope}{rest}")

    async def _pages(
        self, resource: Resource, url: URL, query: Mapping[str, str], accept: str
    ) -> Sequence[Manifest]:
        items: list[Manifest] = []
        page_query = {**query, "limit": str(_PAGE_SIZE)}
        while True:
            page = await self._send(
                _Call("GET", url.with_query(page_query), accept=accept, seconds=_LIST_SECONDS)
            )
            for item in page.get("items") or ():
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind
                items.append(item)
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            page_query["continue"] = token

    async def _send(self, call: _Call) -> Manifest:
        for backoff in _BACKOFFS:
            try:
                return await self._send_once(call)
            except KubeError as error:
                if not _retryable(call, error):
                    raise
                pause = backoff * random.uniform(0.7, 1.3)  # noqa: S311 - jitter is no secret
                if error.retry_after is not None:
                    if error.retry_after > _LONGEST_RETRY_AFTER:
                        raise
                    pause = max(pause, error.retry_after)
                metrics.REST_RETRIES.labels(
                    str(error.status or "<error>"), call.method, call.url.authority
                ).inc()
            await asyncio.sleep(pause)
        return await self._send_once(call)

    async def _send_once(self, call: _Call) -> Manifest:
        headers = {"Accept": call.accept}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        try:
            async with self._http.request(
                call.method,
                call.url,
                data=call.body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=call.seconds),
            ) as response:
                raw = await response.read()
                retry_after = response.headers.get("Retry-After", "")
                status = response.status
        except TimeoutError:
            raise _unreachable(call, f"no answer within {call.seconds:.0f} s") from None
        except (aiohttp.ClientError, LoginError, OSError) as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise _unreachable(call, str(error) or repr(error), sent=sent) from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise _refused(status, raw, retry_after)
        answer = _decode(raw)
        if answer is None:
            raise _unreachable(call, "the answer is not JSON: is this a Kubernetes API server?")
        return answer


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _decode(raw: bytes) -> Manifest | None:
    try:
        answer = json.loads(raw)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _retryable(call: _Call, error: KubeError) -> bool:
    if error.status == HTTPStatus.TOO_MANY_REQUESTS or error.details.get("sent") is False:
        return True
    return call.repeatable and error.transient


def _unreachable(call: _Call, why: str, *, sent: bool = True) -> KubeError:
    message = f"{call.method} {call.url.origin()}{call.url.path}: {why}"
    return KubeError(0, "Unreachable", message, details={"sent": sent})


def _refused(status: int, raw: bytes, retry_after: str) -> KubeError:
    body = _decode(raw) or {}
    details = body.get("details") or {}
    after: float | None = None
    if retry_after.isdecimal():
        after = float(retry_after)
    elif details.get("retryAfterSeconds"):
        after = float(details["retryAfterSeconds"])
    reason = body.get("reason") or _phrase(status)
    message = body.get("message") or raw[:200].decode(errors="replace").strip() or reason
    return KubeError(status, reason, message, retry_after=after, details=details)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.title().replace(" ", "")
    except ValueError:
        return f"HTTP{status}"
