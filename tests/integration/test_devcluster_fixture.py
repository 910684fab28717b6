"""The fixtures that other tests build on."""

from __future__ import annotations

import json
from typing import Any


def test_what_an_owner_leaves_behind_is_collected(control_plane: Any, namespace: str) -> None:
    inside = f"--namespace={namespace}"
    control_plane.kubectl("create", "configmap", "owner", inside)
    shown = control_plane.kubectl(
        "get", "configmap", "owner", inside, "-o=jsonpath={.metadata.uid}"
    )
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": shown.stdout}
            ],
        },
    }
    control_plane.kubectl("create", inside, "-f", "-", input=json.dumps(owned))
    control_plane.kubectl("delete", "configmap", "owner", inside)
    control_plane.kubectl("wait", "--for=delete", "configmap/owned", inside, "--timeout=60s")


def test_rights_are_enforced(control_plane: Any, namespace: str) -> None:
    account = f"--as=system:serviceaccount:{namespace}:default"
    refused = control_plane.kubectl(
        "get", "secrets", f"--namespace={namespace}", account, check=False
    )
    assert "forbidden" in refused.stderr


def test_audit_log_names_each_write(control_plane: Any, namespace: str) -> None:
    control_plane.kubectl("create", "configmap", "counted", f"--namespace={namespace}")
    control_plane.kubectl(
        "patch",
        "configmap",
        "counted",
        f"--namespace={namespace}",
        "--patch",
        '{"data": {"a": "b"}}',
    )
    records = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    verbs = [
        record["verb"]
        for record in records
        if record.get("objectRef", {}).get("name") == "counted"
        and record["objectRef"].get("namespace") == namespace
        and record["verb"] != "get"
    ]
    assert verbs == ["create", "patch"]
