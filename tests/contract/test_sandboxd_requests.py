"""Requests that no SDK makes: each is refused with a reason, none is an error of the daemon."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from support.sandboxd_process import SandboxdProcess

DEEP_JSON = b"[" * 60_000
MANY_DIGITS = "9" * 5000
MULTIPART = {"Content-Type": "multipart/form-data; boundary=abc"}
START = "/process.Process/Start"
LIST_DIR = "/filesystem.Filesystem/ListDir"


@pytest.fixture(scope="module")
def control(sandboxd: SandboxdProcess) -> Iterator[httpx.Client]:
    """A client with the API key."""
    headers = {"X-API-KEY": sandboxd.api_key}
    with httpx.Client(base_url=sandboxd.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def envd(control: httpx.Client) -> Iterator[httpx.Client]:
    """A client of one sandbox's envd, with its token."""
    body = {"templateID": "quick-script", "timeout": 300}
    made = control.post("/v2/sandboxes", json=body).json()
    headers = {
        "E2b-Sandbox-Id": made["sandboxID"],
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": made["envdAccessToken"],
    }
    with httpx.Client(base_url=control.base_url, headers=headers, timeout=30) as client:
        yield client
    control.delete(f"/sandboxes/{made['sandboxID']}")


def test_uploaded_files_go_where_their_names_say(envd: httpx.Client) -> None:
    paths = {
        "/tmp/upload/a b.txt": "/tmp/upload/a b.txt",
        "/tmp/upload/../upload/é.txt": "/tmp/upload/é.txt",
        "notes/c.txt": "/home/user/notes/c.txt",
        "../../tmp/upload/d.txt": "/tmp/upload/d.txt",
    }
    parts = [("file", (name, name.encode())) for name in paths]
    stored = envd.post("/files", files=parts).json()
    assert [entry["path"] for entry in stored] == list(paths.values())
    for name, path in paths.items():
        assert envd.get("/files", params={"path": path}).content == name.encode()


@pytest.mark.parametrize(
    ("header", "send"),
    [
        (b"X-API-KEY", lambda client: client.get("/v2/sandboxes")),
        (b"X-Access-Token", lambda client: client.get("/files?path=a")),
    ],
)
def test_credentials_beyond_ascii_are_wrong(
    envd: httpx.Client, header: bytes, send: Callable[[httpx.Client], httpx.Response]
) -> None:
    fields: dict[bytes, bytes] = {header: b"\xff\xfe"}
    if header == b"X-Access-Token":
        fields[b"E2b-Sandbox-Id"] = envd.headers["E2b-Sandbox-Id"].encode()
    with httpx.Client(base_url=envd.base_url, headers=fields) as client:
        assert send(client).status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/sandboxes", DEEP_JSON),
        ("/v2/sandboxes", rb'{"templateID": "base", "envVars": {"A": "\ud800"}}'),
        ("/v2/sandboxes", rb'{"templateID": "base", "metadata": {"A\u0000": "b"}}'),
    ],
)
def test_bad_bodies(control: httpx.Client, path: str, body: bytes) -> None:
    answer = control.post(path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


@pytest.mark.parametrize("query", [f"limit={MANY_DIGITS}", "limit=²", "nextToken=LTU="])
def test_bad_queries(control: httpx.Client, query: str) -> None:
    assert control.get(f"/v2/sandboxes?{query}").status_code == 400


@pytest.mark.parametrize("port", [MANY_DIGITS, "0", "65536", "-1"])
def test_bad_ports(envd: httpx.Client, port: str) -> None:
    answer = envd.get("/", headers={"E2b-Sandbox-Port": port})
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


@pytest.mark.parametrize(
    "headers", [MULTIPART, {"Content-Type": "multipart/form-data"}], ids=["garbage", "no boundary"]
)
def test_broken_multipart(envd: httpx.Client, headers: dict[str, str]) -> None:
    answer = envd.post("/files", headers=headers, content=b"garbage")
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.json()["message"]


@pytest.mark.parametrize("body", [DEEP_JSON, rb'{"path": "\ud800"}', b'{"path": 5}'])
def test_bad_unary_messages(envd: httpx.Client, body: bytes) -> None:
    answer = envd.post(LIST_DIR, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    "process",
    [{"cmd": 5}, {"cmd": "true", "args": [1]}, {"cmd": "true", "envs": {"A": 1}}, {}],
)
def test_bad_commands(envd: httpx.Client, process: dict[str, Any]) -> None:
    assert _refusal(envd, json.dumps({"process": process}).encode()) == "invalid_argument"


def test_message_that_ends_too_early(envd: httpx.Client) -> None:
    assert _refusal(envd, b"{}", length=100) == "invalid_argument"


def test_timeout_that_is_no_number_of_the_protocol(envd: httpx.Client) -> None:
    body = json.dumps({"process": {"cmd": "true"}}).encode()
    assert _refusal(envd, body, timeout=MANY_DIGITS) is None


def _refusal(
    envd: httpx.Client, body: bytes, *, length: int | None = None, timeout: str = "5000"
) -> str | None:
    """The code with which a stream that starts a command is refused."""
    answer = envd.post(
        START,
        headers={"Content-Type": "application/connect+json", "Connect-Timeout-Ms": timeout},
        content=struct.pack(">BI", 0, len(body) if length is None else length) + body,
    )
    assert answer.status_code == 200
    rest, trailer = answer.content, {}
    while rest:
        flags, size = struct.unpack(">BI", rest[:5])
        trailer = json.loads(rest[5 : 5 + size]) if flags & 2 else trailer
        rest = rest[5 + size :]
    code: str | None = trailer.get("error", {}).get("code")
    return code
