"""What is kept on disk, and whom we may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from capibara_devcluster import files
from capibara_devcluster.errors import DevclusterError, tail
from capibara_devcluster.layout import Layout
from capibara_devcluster.network import Ports
from capibara_devcluster.options import Options, Profile, Provider
from capibara_devcluster.process import Identity
from capibara_devcluster.record import Record


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "demo")


def test_record_survives_the_way_to_disk(layout: Layout) -> None:
    record = Record(
        provider=Provider.LIGHT,
        profile=Profile.CONTROL_PLANE,
        options=Options(kwok_nodes=3, audit=True),
        ports=Ports(1, 2, 3, 4, 5, 6),
        link="10.213.0.0/30",
        supervisor=Identity(pid=1, started="2", boot="3"),
        complete=True,
    )
    record.store(layout)
    assert Record.load(layout) == record


def test_no_record_is_no_cluster(layout: Layout) -> None:
    assert Record.load(layout) is None


def test_record_of_another_version_is_named_not_guessed(layout: Layout) -> None:
    files.write_json(layout.record, {"name": "demo", "engine": "old"})
    with pytest.raises(DevclusterError, match=r"cluster\.json"):
        Record.load(layout)


def test_new_supervisor_makes_the_cluster_incomplete() -> None:
    record = Record(provider=Provider.LIGHT, profile=Profile.CONTROL_PLANE, options=Options())
    assert record.completed().with_supervisor(None) == record


def test_choice_ignores_what_the_start_decided() -> None:
    record = Record(provider=Provider.NATIVE, profile=Profile.FULL, options=Options())
    assert record.same_choice(replace(record, link="10.213.0.0/30", complete=True))
    assert not record.same_choice(replace(record, options=Options(audit=True)))


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "..", "a" * 33])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DevclusterError, match="is no cluster name"):
        Layout(tmp_path, name)


def test_written_file_is_whole_and_private(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    files.write(target, "one")
    files.write(target, "two")
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.write(target, "old")
    target.chmod(0o600)
    with pytest.raises(TypeError):
        files.write(target, 3)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_lock_has_one_holder_and_dies_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    program = (
        "import fcntl, time\n"
        f"file = open({str(lock)!r}, 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    told: list[str] = []
    try:
        with (
            pytest.raises(DevclusterError, match="another command"),
            files.locked(lock, timeout=0.3, waiting=lambda: told.append("waiting")),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert told == ["waiting"]
    with files.locked(lock, timeout=0.3):
        assert lock.exists()


def test_identity_is_of_this_process_only() -> None:
    me = Identity.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert not replace(me, started="1").alive()
    assert not replace(me, boot="another").alive()


def test_recycled_pid_is_never_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = Identity.of(process.pid)
        assert identity is not None
        assert replace(identity, started="1").kill(timeout=1)
        assert process.poll() is None
        assert identity.kill(timeout=5)
        assert process.wait() != 0


def test_ended_process_has_no_identity() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert Identity.of(process.pid) is None


def test_failure_says_what_happened_where_and_what_next(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    message = str(DevclusterError("etcd ended", hint="run it again", log=log))
    assert message.startswith("etcd ended")
    assert "| line 99" in message
    assert "| line 1\n" not in message
    assert f"log: {log}" in message
    assert message.endswith("next: run it again")


def test_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "absent") == []
