"""The unmodified e2b and e2b-code-interpreter SDKs against a real sandboxd."""

import asyncio
import gzip
import io
import time
import uuid

import e2b
import e2b_code_interpreter as ci
import httpx
import pytest
from e2b.exceptions import (
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    TimeoutException,
)

from support.sandboxd_process import SandboxdProcess, envd_headers, until

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def sandbox(sdk_sandbox: ci.Sandbox) -> ci.Sandbox:
    return sdk_sandbox


class TestControlPlane:
    def test_lifecycle(self, sandboxd: SandboxdProcess, account: dict[str, str]) -> None:
        tag = {"run": uuid.uuid4().hex, "text": 'a b&c="ü"'}
        made = e2b.Sandbox.create("data-analysis", metadata=tag, timeout=60, **account)
        info = made.get_info()
        assert (info.template_id, info.cpu_count, info.memory_mb) == ("data-analysis", 1, 1024)
        assert info.metadata == tag
        assert 55 < (info.end_at - info.started_at).total_seconds() <= 61
        found = e2b.Sandbox.list(query=e2b.SandboxQuery(metadata=tag), **account).next_items()
        assert [one.sandbox_id for one in found] == [made.sandbox_id]
        assert e2b.Sandbox.connect(made.sandbox_id, **account).commands.run("true").exit_code == 0
        assert made.is_running()
        assert made.kill()
        assert not made.kill()
        assert not made.is_running()
        assert not sandboxd.sandboxes(tag)
        with pytest.raises(SandboxNotFoundException):
            made.get_info()
        with pytest.raises(SandboxNotRunningException):
            made.commands.run("true")

    def test_list_pages_newest_first(self, account: dict[str, str]) -> None:
        tag = {"page": uuid.uuid4().hex}
        made = [e2b.Sandbox.create("base", metadata=tag, **account) for _ in range(3)]
        pages = e2b.Sandbox.list(query=e2b.SandboxQuery(metadata=tag), limit=2, **account)
        first = [one.sandbox_id for one in pages.next_items()]
        assert pages.has_next
        second = [one.sandbox_id for one in pages.next_items()]
        assert not pages.has_next
        assert first + second == [one.sandbox_id for one in reversed(made)]
        for one in made:
            one.kill()

    def test_lifetime_is_enforced_and_extended(self, account: dict[str, str]) -> None:
        made = e2b.Sandbox.create("base", timeout=2, **account)
        longer = e2b.Sandbox.create("base", timeout=2, **account)
        longer.set_timeout(60)
        until(lambda: not made.is_running(), seconds=30)
        assert longer.is_running()
        longer.set_timeout(0)
        until(lambda: not longer.is_running(), seconds=30)

    def test_timeout_can_pause_and_connect_resumes(self, account: dict[str, str]) -> None:
        lifecycle = {"on_timeout": "pause", "auto_resume": False}
        made = e2b.Sandbox.create("base", timeout=2, lifecycle=lifecycle, **account)
        made.files.write("kept.txt", "1")
        until(lambda: made.get_info().state == e2b.SandboxState.PAUSED, seconds=30)
        assert not made.is_running()
        resumed = e2b.Sandbox.connect(made.sandbox_id, timeout=60, **account)
        assert resumed.files.read("kept.txt") == "1"
        assert resumed.pause()
        assert not resumed.pause()
        assert resumed.kill()

    def test_idempotency_key(self, account: dict[str, str]) -> None:
        key = uuid.uuid4().hex
        made = e2b.Sandbox.create("base", idempotency_key=key, **account)
        same = e2b.Sandbox.create("base", idempotency_key=key, **account)
        assert same.sandbox_id == made.sandbox_id
        with pytest.raises(SandboxException) as mismatch:
            e2b.Sandbox.create("base", timeout=77, idempotency_key=key, **account)
        assert mismatch.value.status_code == 422
        made.kill()
        with pytest.raises(SandboxException) as ended:
            e2b.Sandbox.create("base", idempotency_key=key, **account)
        assert ended.value.status_code == 409

    def test_simultaneous_creates_with_one_key_make_one_sandbox(
        self, sandboxd: SandboxdProcess
    ) -> None:
        async def create(client: httpx.AsyncClient, tag: str) -> str:
            headers = {"X-API-KEY": sandboxd.api_key, "Idempotency-Key": tag}
            body = {"templateID": "base", "metadata": {"tag": tag}}
            answer = await client.post(
                f"{sandboxd.url}/v2/sandboxes", json=body, headers=headers, timeout=30
            )
            return str(answer.json()["sandboxID"])

        async def both(tag: str) -> list[str]:
            async with httpx.AsyncClient() as client:
                return await asyncio.gather(*(create(client, tag) for _ in range(4)))

        tag = uuid.uuid4().hex
        assert len(set(asyncio.run(both(tag)))) == 1
        assert len(sandboxd.sandboxes({"tag": tag})) == 1

    def test_wrong_key(self, account: dict[str, str]) -> None:
        with pytest.raises(AuthenticationException):
            e2b.Sandbox.create("base", **account | {"api_key": "e2b_" + "0" * 40})

    def test_unknown_template(self, account: dict[str, str]) -> None:
        with pytest.raises(SandboxException, match="template 'nope' not found") as refused:
            e2b.Sandbox.create("nope", **account)
        assert refused.value.status_code == 404

    def test_concurrency_limit(self) -> None:
        small = SandboxdProcess("--max-sandboxes", "1", templates=())
        small.start()
        try:
            e2b.Sandbox.create("base", **small.account)
            with pytest.raises(RateLimitException, match="maximum number of concurrent") as full:
                e2b.Sandbox.create("base", retries=0, **small.account)
            assert full.value.status_code == 429
        finally:
            small.close()

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("POST", "/v2/sandboxes", "{", 400),
            ("POST", "/v2/sandboxes", "[]", 400),
            ("POST", "/v2/sandboxes", "{}", 400),
            ("POST", "/v2/sandboxes", '{"templateID": "base", "timeout": 0}', 400),
            ("POST", "/v2/sandboxes", '{"templateID": "base", "timeout": 1e9}', 400),
            ("POST", "/v2/sandboxes", '{"templateID": "base", "metadata": {"a": 1}}', 400),
            ("POST", "/v2/sandboxes", '{"templateID": "base", "envVars": {"a b": "1"}}', 400),
            ("POST", "/v2/sandboxes", '{"templateID": "base", "volumeMounts": [{}]}', 400),
            (
                "POST",
                "/v2/sandboxes",
                '{"templateID": "base", "network": {"rules": {"a": []}}}',
                400,
            ),
            ("GET", "/v2/sandboxes?limit=0", "", 400),
            ("GET", "/v2/sandboxes?state=lost", "", 400),
            ("GET", "/v2/sandboxes?nextToken=%21", "", 400),
            ("POST", "/sandboxes/none/timeout", '{"timeout": 1}', 404),
            ("DELETE", "/sandboxes/none", "", 404),
            ("GET", "/nowhere", "", 404),
            ("PATCH", "/v2/sandboxes", "", 405),
        ],
    )
    def test_bad_requests_answer_json(
        self, sandboxd: SandboxdProcess, method: str, path: str, body: str, status: int
    ) -> None:
        headers = {"X-API-KEY": sandboxd.api_key}
        answer = httpx.request(method, sandboxd.url + path, content=body, headers=headers)
        assert answer.status_code == status
        assert answer.json()["code"] == status
        assert answer.json()["message"]

    def test_version_1_path_and_missing_key(self, sandboxd: SandboxdProcess) -> None:
        body = {"templateID": "base", "secure": True}
        refused = httpx.post(f"{sandboxd.url}/sandboxes", json=body)
        assert (refused.status_code, refused.json()["code"]) == (401, 401)
        headers = {"X-API-KEY": sandboxd.api_key}
        made = httpx.post(f"{sandboxd.url}/sandboxes", json=body, headers=headers, timeout=30)
        assert made.status_code == 201
        path = f"{sandboxd.url}/sandboxes/{made.json()['sandboxID']}"
        assert httpx.delete(path, headers=headers).status_code == 204


class TestCommands:
    def test_foreground(self, sandbox: ci.Sandbox) -> None:
        command = "echo $GREETING $EXTRA; echo oops >&2; pwd"
        done = sandbox.commands.run(command, envs={"EXTRA": "you"}, cwd="/tmp")
        assert (done.stdout, done.stderr, done.exit_code) == ("hello you\n/tmp\n", "oops\n", 0)

    def test_exit_code(self, sandbox: ci.Sandbox) -> None:
        with pytest.raises(e2b.CommandExitException) as failed:
            sandbox.commands.run("echo out; exit 7")
        assert (failed.value.exit_code, failed.value.stdout) == (7, "out\n")

    def test_output_is_streamed(self, sandbox: ci.Sandbox) -> None:
        began = time.monotonic()
        seen: list[float] = []
        sandbox.commands.run(
            "echo 1; sleep 1; echo 2", on_stdout=lambda _: seen.append(time.monotonic() - began)
        )
        assert len(seen) == 2
        assert seen[0] < 0.9 < seen[1]

    def test_large_output_is_whole(self, sandbox: ci.Sandbox) -> None:
        done = sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x")
        assert len(done.stdout) == 3_000_000

    def test_background_input_and_kill(self, sandbox: ci.Sandbox) -> None:
        handle = sandbox.commands.run("cat", background=True, stdin=True)
        assert handle.pid in {one.pid for one in sandbox.commands.list()}
        sandbox.commands.send_stdin(handle.pid, "line\n")
        sandbox.commands.close_stdin(handle.pid)
        assert handle.wait().stdout == "line\n"
        sleeper = sandbox.commands.run("sleep 100", background=True)
        assert sleeper.kill()
        with pytest.raises(e2b.CommandExitException):
            sleeper.wait()
        assert not sandbox.commands.kill(999_999)

    def test_server_enforces_the_timeout(self, sandbox: ci.Sandbox) -> None:
        with pytest.raises(TimeoutException):
            sandbox.commands.run("echo $$ > pid; exec sleep 300", timeout=1)
        pid = sandbox.files.read("pid").strip()
        gone = f"for n in {{1..100}}; do kill -0 {pid} || exec echo gone; sleep 0.1; done"
        assert sandbox.commands.run(gone).stdout == "gone\n"

    def test_timeout_ends_a_stream_that_a_grandchild_holds_open(self, sandbox: ci.Sandbox) -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutException):
            sandbox.commands.run("setsid sleep 20 & exit 0", timeout=1)
        assert time.monotonic() - began < 10

    def test_disconnect_leaves_it_running_and_connect_follows(self, sandbox: ci.Sandbox) -> None:
        handle = sandbox.commands.run("sleep 1; echo late", background=True)
        handle.disconnect()
        assert sandbox.commands.connect(handle.pid).wait().stdout == "late\n"

    def test_errors(self, sandbox: ci.Sandbox) -> None:
        with pytest.raises(InvalidArgumentException, match="cwd '/nowhere'"):
            sandbox.commands.run("true", cwd="/nowhere")
        with pytest.raises(AuthenticationException, match="user 'root'"):
            sandbox.commands.run("true", user="root")
        with pytest.raises(NotFoundException):
            sandbox.commands.connect(999_999)

    def test_killed_sandbox_breaks_the_stream(self, account: dict[str, str]) -> None:
        made = e2b.Sandbox.create("base", **account)
        handle = made.commands.run("sleep 100", background=True)
        made.kill()
        with pytest.raises(SandboxNotRunningException):
            handle.wait()

    async def test_async(self, async_sandbox: ci.AsyncSandbox) -> None:
        done = await asyncio.gather(
            *(async_sandbox.commands.run(f"echo {number}") for number in range(8))
        )
        assert [one.stdout for one in done] == [f"{number}\n" for number in range(8)]
        handle = await async_sandbox.commands.run("sleep 100", background=True, timeout=0)
        assert await handle.kill()


class TestFiles:
    def test_text_bytes_and_several(self, sandbox: ci.Sandbox) -> None:
        data = bytes(range(256)) * 500
        sandbox.files.write("/data/new/text.txt", "grüße")
        assert sandbox.files.read("/data/new/text.txt") == "grüße"
        written = sandbox.files.write_files(
            [{"path": "one.bin", "data": data}, {"path": "sub/two.txt", "data": "2"}]
        )
        assert [one.path for one in written] == ["/home/user/one.bin", "/home/user/sub/two.txt"]
        assert sandbox.files.read("one.bin", format="bytes") == data
        assert sandbox.files.read("one.bin", format="bytes", gzip=True) == data
        assert b"".join(sandbox.files.read("one.bin", format="stream")) == data

    def test_octet_stream_and_gzip_uploads(self, sandbox: ci.Sandbox) -> None:
        data = b"abc" * 100_000
        sandbox.files.write("stream.bin", io.BytesIO(data))
        sandbox.files.write("gzip.bin", data, gzip=True)
        assert sandbox.files.read("stream.bin", format="bytes") == data
        assert sandbox.files.read("gzip.bin", format="bytes") == data

    def test_overwrite_keeps_the_mode(self, sandbox: ci.Sandbox) -> None:
        sandbox.files.write("tool.sh", "long content")
        sandbox.commands.run("chmod 700 tool.sh")
        sandbox.files.write("tool.sh", "short")
        assert sandbox.files.read("tool.sh") == "short"
        assert sandbox.files.get_info("tool.sh").mode == 0o700

    def test_tree(self, sandbox: ci.Sandbox) -> None:
        assert sandbox.files.make_dir("tree/a/b")
        assert not sandbox.files.make_dir("tree/a/b")
        sandbox.files.write("tree/a/file", "1")
        sandbox.commands.run("ln -s /etc/passwd tree/link")
        names = [one.path for one in sandbox.files.list("tree", depth=3)]
        root = "/home/user/tree"
        assert names == [f"{root}/a", f"{root}/a/b", f"{root}/a/file", f"{root}/link"]
        assert sandbox.files.get_info("tree/link").symlink_target == "/etc/passwd"
        assert sandbox.files.rename("tree/a/file", "/tmp/moved").path == "/tmp/moved"
        assert sandbox.files.exists("/tmp/moved")
        sandbox.files.remove("tree")
        assert not sandbox.files.exists("tree")

    def test_errors(self, sandbox: ci.Sandbox) -> None:
        with pytest.raises(FileNotFoundException, match="does not exist"):
            sandbox.files.read("missing.txt")
        with pytest.raises(InvalidArgumentException, match="is a directory"):
            sandbox.files.read("/home/user")
        with pytest.raises(FileNotFoundException):
            sandbox.files.list("missing")
        with pytest.raises(SandboxException):
            sandbox.files.write("/usr/bin/evil", "x")

    def test_truncated_gzip_is_refused(
        self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox
    ) -> None:
        body = gzip.compress(b"x" * 10_000)[:-20]
        headers = envd_headers(sandbox) | {
            "Content-Encoding": "gzip",
            "Content-Type": "application/octet-stream",
        }
        answer = httpx.post(f"{sandboxd.url}/files?path=broken", content=body, headers=headers)
        assert answer.status_code == 400
