"""The object that holds what of a run's output does not fit into its status."""

import base64
import hashlib
from typing import Any, Final

from capibara_operator.api.common import API_VERSION, PART_OF, RUN_LABEL
from capibara_operator.api.run import MAX_OUTPUTS, OutputRef, RunOutput
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.transcript import TAIL_BYTES, Stream, Transcript

_STREAMS: Final = ("stdout", "stderr")


def output_name(run: Run) -> str:
    """Name of the run's output object."""
    return f"{run.name}-output"


def output_manifest(run: Run, transcript: Transcript) -> dict[str, Any]:
    """An immutable ConfigMap, owned by the run: streams as text, all else as binaryData."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": output_name(run),
            "namespace": run.namespace,
            "labels": {
                "app.kubernetes.io/component": "run-output",
                "app.kubernetes.io/managed-by": "capibara-operator",
                "app.kubernetes.io/part-of": PART_OF,
                RUN_LABEL: run.name,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "SandboxRun",
                    "name": run.name,
                    "uid": run.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "immutable": True,
        "data": {name: stream.head for name, stream in _long_streams(transcript)},
        "binaryData": {
            blob.name: base64.b64encode(blob.data).decode("ascii") for blob in transcript.blobs
        },
    }


def output_entries(transcript: Transcript, name: str | None) -> tuple[RunOutput, ...]:
    """``status.outputs``; without refs where the object could not be stored."""
    entries = [_entry(blob.name, blob.mime_type, blob.data, name) for blob in transcript.blobs]
    entries += [
        _entry(stream_name, "text/plain", stream.head.encode("utf-8", "replace"), name)
        for stream_name, stream in _long_streams(transcript)
    ]
    return tuple(entries[:MAX_OUTPUTS])


def _long_streams(transcript: Transcript) -> list[tuple[str, Stream]]:
    streams = zip(_STREAMS, (transcript.stdout, transcript.stderr), strict=True)
    return [(name, stream) for name, stream in streams if stream.size > TAIL_BYTES]


def _entry(key: str, mime_type: str, data: bytes, name: str | None) -> RunOutput:
    return RunOutput(
        name=key,
        mime_type=mime_type,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        ref=OutputRef(name=name, key=key) if name else None,
    )
