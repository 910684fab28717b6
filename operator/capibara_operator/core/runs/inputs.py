"""The environment and files of a run, its references to ConfigMaps and Secrets resolved."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from capibara_operator.api.common import KeyRef
from capibara_operator.api.run import RunReason, SandboxRunSpec
from capibara_operator.core.runs.protocol import Job, job_files
from capibara_operator.core.runs.seen import Refused


class Source(StrEnum):
    """Kinds of objects that a run may refer to."""

    CONFIG_MAP = "ConfigMap"
    SECRET = "Secret"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that a run refers to."""

    kind: Source
    name: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is given; never shown, since it may come from Secrets."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


class _MissingError(Exception):
    pass


def references(spec: SandboxRunSpec) -> tuple[Reference, ...]:
    """The objects that must be read for a run, each once."""
    found = [ref for ref, _ in _key_refs(spec)]
    return tuple(dict.fromkeys(found))


def resolve_inputs(
    spec: SandboxRunSpec, objects: Mapping[Reference, Mapping[str, Any] | None]
) -> Inputs | Refused:
    """Put the objects' values in place; Refused while an object or a key is not there."""
    try:
        return Inputs(env=_env(spec, objects), files=_files(spec, objects))
    except _MissingError as error:
        return Refused(RunReason.INVALID_SPEC, str(error), waits=True)


def unreadable(ref: Reference, why: str) -> Refused:
    """The API server does not let the operator read an object; the right may still come."""
    message = (
        f"The operator may not read {ref.kind} {ref.name} ({why}). Grant its service account the"
        " right to get it."
    )
    return Refused(RunReason.INVALID_SPEC, message, waits=True)


def upload_files(
    run_spec: SandboxRunSpec,
    inputs: Inputs,
    *,
    key: str,
    deadline_seconds: int,
    template_env: Mapping[str, str],
) -> tuple[tuple[str, bytes], ...]:
    """Everything that goes into the sandbox; the runner last, so that it implies the rest."""
    job = Job(
        key=key,
        deadline_seconds=deadline_seconds,
        language=run_spec.language.value,
        code=run_spec.code,
        command=run_spec.command or (),
        args=run_spec.args,
        env={**template_env, **inputs.env},
        artifacts=tuple(each.path for each in run_spec.artifacts),
    )
    return (*inputs.files, *job_files(job))


def _key_refs(spec: SandboxRunSpec) -> list[tuple[Reference, str]]:
    pairs = [
        (each.value_from.config_map_key_ref, each.value_from.secret_key_ref)
        for each in spec.env
        if each.value_from is not None
    ]
    pairs += [(each.config_map_key_ref, each.secret_key_ref) for each in spec.files]
    found = []
    for config_map, secret in pairs:
        if config_map is not None:
            found.append((Reference(Source.CONFIG_MAP, config_map.name), config_map.key))
        if secret is not None:
            found.append((Reference(Source.SECRET, secret.name), secret.key))
    return found


def _env(
    spec: SandboxRunSpec, objects: Mapping[Reference, Mapping[str, Any] | None]
) -> dict[str, str]:
    env = {}
    for each in spec.env:
        source = each.value_from
        if source is None:
            env[each.name] = each.value or ""
            continue
        data = _value(source.config_map_key_ref, source.secret_key_ref, objects)
        try:
            env[each.name] = data.decode("utf-8")
        except UnicodeDecodeError:
            message = f"The value for environment variable {each.name} is not text."
            raise _MissingError(message) from None
    return env


def _files(
    spec: SandboxRunSpec, objects: Mapping[Reference, Mapping[str, Any] | None]
) -> tuple[tuple[str, bytes], ...]:
    files = []
    for each in spec.files:
        if each.content is not None:
            data = each.content.encode("utf-8")
        else:
            data = _value(each.config_map_key_ref, each.secret_key_ref, objects)
        files.append((each.path, data))
    return tuple(files)


def _value(
    config_map: KeyRef | None,
    secret: KeyRef | None,
    objects: Mapping[Reference, Mapping[str, Any] | None],
) -> bytes:
    if secret is not None:
        return _lookup(Reference(Source.SECRET, secret.name), secret.key, objects)
    if config_map is not None:
        return _lookup(Reference(Source.CONFIG_MAP, config_map.name), config_map.key, objects)
    return b""


def _lookup(
    ref: Reference, key: str, objects: Mapping[Reference, Mapping[str, Any] | None]
) -> bytes:
    found = objects.get(ref)
    if found is None:
        raise _MissingError(f"{ref.kind} {ref.name} does not exist. Create it.")
    text = (found.get("data") or {}).get(key)
    if text is not None and ref.kind is Source.CONFIG_MAP:
        return str(text).encode("utf-8")
    encoded = text if ref.kind is Source.SECRET else (found.get("binaryData") or {}).get(key)
    if encoded is None:
        raise _MissingError(f"{ref.kind} {ref.name} has no key {key}. Add it.")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise _MissingError(f"Key {key} of {ref.kind} {ref.name} cannot be decoded.") from None
