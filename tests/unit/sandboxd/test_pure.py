"""Parts of sandboxd that need no sandbox."""

import asyncio
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_sandboxd import config, state
from capibara_sandboxd.api import bodies
from capibara_sandboxd.errors import ApiError
from capibara_sandboxd.guest import frames, mime
from capibara_sandboxd.guest.session import Session
from capibara_sandboxd.isolation.cgroups import Group

SESSION = Session("/home/user", "user", "/bin", "/bin/python3", ())


class TestTemplates:
    def test_flags_win_over_environment_and_built_in_ones(self) -> None:
        found = config.templates(
            ["base:cpu=4,memory=2048"], {"CAPIBARA_SANDBOXD_TEMPLATES": "base:cpu=1; a:memory=256"}
        )
        assert found["base"] == config.Template("base", 4, 2048)
        assert found["a"] == config.Template("a", 2, 256)
        assert "code-interpreter-v1" in found

    @pytest.mark.parametrize(
        "text", ["", ":cpu=1", "A", "a:cpu=-1", "a:cpu=99", "a:memory=127", "a:memory=1g", "a:x=1"]
    )
    def test_bad_ones_are_refused(self, text: str) -> None:
        with pytest.raises(config.ConfigurationError):
            config.parse_template(text)


class TestMetadataFilter:
    @given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
    def test_undoes_double_quoting(self, pairs: dict[str, str]) -> None:
        quoted = {urllib.parse.quote(k): urllib.parse.quote(v) for k, v in pairs.items()}
        assert bodies.metadata_filter(urllib.parse.urlencode(quoted)) == pairs


class TestIdempotencyKey:
    @pytest.mark.parametrize("key", ["", "UPPER", "a_b", "x" * 256, "ä"])
    def test_bad_ones_are_refused(self, key: str) -> None:
        with pytest.raises(ApiError):
            bodies.idempotency_key(key)

    def test_absent(self) -> None:
        assert bodies.idempotency_key(None) is None


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "resolved"),
        [
            ("a", "/home/user/a"),
            ("~", "/home/user"),
            ("~/a", "/home/user/a"),
            ("/a/../b", "/b"),
            ("../../..", "/"),
        ],
    )
    def test_resolve(self, path: str, resolved: str) -> None:
        assert SESSION.resolve(path) == resolved

    def test_environment_order(self) -> None:
        SESSION.envs = {"A": "sandbox", "B": "sandbox"}
        environment = SESSION.environment({"B": "request"})
        assert (environment["A"], environment["B"]) == ("sandbox", "request")
        assert environment["HOME"] == "/home/user"


class TestFrames:
    @given(st.integers(0, 3), st.binary(max_size=4096))
    def test_round_trip(self, kind: int, payload: bytes) -> None:
        assert asyncio.run(_read(frames.pack(kind, payload))) == (kind, payload)

    @given(st.binary(max_size=64))
    def test_any_bytes_are_a_frame_an_end_or_an_error(self, data: bytes) -> None:
        try:
            frame = asyncio.run(_read(data))
        except frames.FrameError:
            return
        assert frame is None or len(frame.payload) <= len(data)


async def _read(data: bytes) -> frames.Frame | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await frames.read_frame(reader)


@dataclass(frozen=True)
class MimeCase:
    reason: str
    kind: str
    content: dict[str, Any]
    want: dict[str, Any]


MIME_CASES = [
    MimeCase(
        "a string's quotes go",
        "execute_result",
        {"data": {"text/plain": "'abc'"}},
        {"type": "result", "is_main_result": True, "text": "abc"},
    ),
    MimeCase(
        "unknown formats are kept",
        "display_data",
        {"data": {"text/plain": "x", "application/x": 1}},
        {"type": "result", "is_main_result": False, "text": "x", "extra": {"application/x": 1}},
    ),
    MimeCase(
        "a traceback is one text",
        "error",
        {"ename": "E", "evalue": "v", "traceback": ["a", "b"]},
        {"type": "error", "name": "E", "value": "v", "traceback": "a\nb"},
    ),
]


@pytest.mark.parametrize("case", MIME_CASES, ids=lambda case: case.reason)
def test_events(case: MimeCase) -> None:
    assert mime.events_of({"msg_type": case.kind, "content": case.content}) == [case.want]


def test_process_that_a_cgroup_shows_as_0_is_left_out(tmp_path: Path) -> None:
    # As version 2 shows one of another pid namespace: killing 0 kills the daemon's own group.
    (tmp_path / "cgroup.procs").write_text("0\n17\n0\n", encoding="ascii")
    assert Group({"memory": tmp_path}, version=2).pids() == {17}


class TestStateDirectory:
    def test_of_another_user_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
        with pytest.raises(config.ConfigurationError, match="belongs to another user"):
            state.lock(tmp_path / "state")

    def test_is_closed_to_others(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        os.close(state.lock(tmp_path))
        assert tmp_path.stat().st_mode & 0o777 == 0o711
