from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from capibara_operator import logs


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_lines_have_the_agreed_keys_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="INFO", log_format="json")
    with logs.bound(controller="sandboxrun", namespace="ns", name="plot"):
        logging.getLogger("x.y").info("created %s", "it", extra={"sandboxID": "s1"})
    (text,) = lines(capsys)
    line = json.loads(text)
    assert list(line)[:4] == ["ts", "level", "logger", "msg"]
    assert line["msg"] == "created it"
    assert line["logger"] == "x.y"
    assert (line["controller"], line["namespace"], line["name"]) == ("sandboxrun", "ns", "plot")
    assert line["sandboxID"] == "s1"
    assert line["ts"].endswith("+00:00")


def test_an_exception_is_one_line_with_error_and_stacktrace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(level="INFO", log_format="json")
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (text,) = lines(capsys)
    line = json.loads(text)
    assert "two" in line["error"]
    assert "Traceback" in line["stacktrace"]
    assert not {"exc_info", "exc_text", "args", "name", "taskName"} & line.keys()


def test_what_is_no_json_is_logged_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="INFO", log_format="json")
    logging.getLogger("x").info("odd", extra={"value": object(), "data": b"x"})
    assert json.loads(lines(capsys)[0])["msg"] == "odd"


def test_nested_fields_add_up_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="INFO", log_format="json")
    with logs.bound(controller="c", namespace=""):
        with logs.bound(name="n"):
            logging.getLogger("x").info("inside")
        logging.getLogger("x").info("between")
    logging.getLogger("x").info("outside")
    inside, between, outside = map(json.loads, lines(capsys))
    assert (inside["controller"], inside["name"]) == ("c", "n")
    assert "namespace" not in inside, "cluster-scoped objects have none"
    assert "name" not in between
    assert "controller" not in outside


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="DEBUG", log_format="text")
    with logs.bound(controller="c", reconcileID="0123"):
        logging.getLogger("x").warning("slow", extra={"seconds": 3})
    (line,) = lines(capsys)
    assert line.endswith("WARNING x: slow controller='c' seconds=3")
    assert "0123" not in line


def test_level_and_noisy_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="INFO", log_format="text")
    logging.getLogger("x").debug("hidden")
    logging.getLogger("kopf.objects").info("Handler 'saw' succeeded.")
    logging.getLogger("httpx").info("HTTP Request: GET ...")
    logging.getLogger("kopf.objects").warning("shown")
    assert len(lines(capsys)) == 1
