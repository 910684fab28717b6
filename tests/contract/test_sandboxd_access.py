"""Keys, tokens and what is told to whom: the genuine SDK against a real sandboxd."""

import e2b
import e2b_code_interpreter as ci
import httpx
import pytest

from support.sandboxd_process import SandboxdProcess, envd_headers, until


@pytest.fixture(scope="module")
def sandbox(sdk_sandbox: ci.Sandbox) -> ci.Sandbox:
    return sdk_sandbox


class TestAccess:
    @pytest.mark.parametrize("token", [None, "", "wrong"])
    def test_envd_needs_the_token(
        self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox, token: str | None
    ) -> None:
        headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
        if token is not None:
            headers["X-Access-Token"] = token
        for method, path in (
            ("GET", "/files?path=/etc/passwd"),
            ("GET", "/envs"),
            ("GET", "/metrics"),
            ("POST", "/process.Process/List"),
        ):
            answer = httpx.request(method, sandboxd.url + path, headers=headers)
            assert answer.status_code == 401, path

    def test_other_sandboxes_token_does_not_open(
        self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox, account: dict[str, str]
    ) -> None:
        other = e2b.Sandbox.create("base", **account)
        headers = envd_headers(other) | {"E2b-Sandbox-Id": sandbox.sandbox_id}
        answer = httpx.get(f"{sandboxd.url}/files?path=/etc/passwd", headers=headers)
        assert answer.status_code == 401
        other.kill()

    def test_public_traffic_can_be_closed(
        self, sandboxd: SandboxdProcess, account: dict[str, str]
    ) -> None:
        made = ci.Sandbox.create("base", network={"allow_public_traffic": False}, **account)
        assert made.run_code("6 * 7").text == "42"
        headers = {"E2b-Sandbox-Id": made.sandbox_id, "E2b-Sandbox-Port": "49999"}
        assert httpx.get(f"{sandboxd.url}/health", headers=headers).status_code == 403
        made.kill()

    def test_gone_sandbox_and_closed_port(
        self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox
    ) -> None:
        gone = httpx.get(f"{sandboxd.url}/health", headers={"E2b-Sandbox-Id": "inone"})
        assert (gone.status_code, gone.json()["message"]) == (502, "The sandbox was not found")
        headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "4444"}
        closed = httpx.get(sandboxd.url, headers=headers)
        assert closed.status_code == 502
        assert closed.json()["message"] == "The sandbox is running but port is not open"

    def test_a_users_server_is_reached_by_its_port(
        self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox
    ) -> None:
        sandbox.files.write("site/index.html", "<p>here</p>")
        server = sandbox.commands.run(
            "python3 -m http.server 8123 --bind 127.0.0.1 -d site", background=True, timeout=0
        )
        headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8123"}
        until(lambda: httpx.get(sandboxd.url, headers=headers).status_code == 200, seconds=10)
        assert httpx.get(sandboxd.url, headers=headers).text == "<p>here</p>"
        server.kill()

    def test_log_holds_no_secret(self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox) -> None:
        sandbox.commands.run("true", envs={"PASSWORD": "hunter2-secret"})
        token = sandbox._envd_access_token
        assert token
        for secret in (sandboxd.api_key, token, "hunter2-secret"):
            assert secret not in sandboxd.log

    def test_metrics(self, sandboxd: SandboxdProcess, sandbox: ci.Sandbox) -> None:
        text = httpx.get(f"{sandboxd.url}/metrics").text
        assert "capibara_sandboxd_create_seconds_count" in text
        usage = httpx.get(f"{sandboxd.url}/metrics", headers=envd_headers(sandbox)).json()
        assert usage["mem_total"] == 512 * 1024 * 1024
        assert 0 < usage["mem_used"] < usage["mem_total"]
