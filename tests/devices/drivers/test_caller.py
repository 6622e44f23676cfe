"""The executor `caller`: one line out, one line in, and nothing carried out twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from devices.driver import Binding, CallRefused, DeviceUnavailable
from devices.drivers.caller import driver as caller
from devices.drivers.caller.driver import DRIVER, CallerDriver, CallerSettings

TOOLSET = """\
schema: toolset/v1
name: lines
title: lines
executors: {mine: {type: caller}}
tools:
  find:
    parameters: {type: object, properties: {code: {type: string}}, required: [code]}
    risk: none
    executor: mine
"""


class Lines:
    """Standard input with lines that were written before; after them it waits, or is at its end."""

    def __init__(self, *lines: str, waits: bool = False) -> None:
        self.lines, self.waits = list(lines), waits

    def readline(self) -> str:
        if not self.lines and self.waits:
            threading.Event().wait(5)
        return self.lines.pop(0) if self.lines else ""


def asked(monkeypatch: pytest.MonkeyPatch, given: Lines, timeout_s: float = 5) -> CallerDriver:
    monkeypatch.setattr(caller.sys, "stdin", given)
    driver = DRIVER.open(CallerSettings(type="caller", timeout_s=timeout_s), dict[str, Binding](), lambda: 0.0)
    assert isinstance(driver, CallerDriver)
    return driver


def test_a_call_is_a_line_and_its_answer_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = asked(monkeypatch, Lines('{"result": {"amount": 5}}\n'))
    assert driver.call("find", "call", {"code": "X"}, "k1") == {"amount": 5}
    assert json.loads(capsys.readouterr().out) == {"call": {"name": "find", "arguments": {"code": "X"}, "key": "k1"}}


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ('{"refused": "no such code"}', CallRefused, "no such code"),
        ('{"failed": "broken"}', DeviceUnavailable, "find: broken"),
        ("", DeviceUnavailable, "find: standard input has ended without an answer"),
        ("hello", DeviceUnavailable, "find: the answer is not JSON: hello"),
        ('{"result": 1, "refused": 2}', DeviceUnavailable, "has to have result, refused or failed"),
        ("[1]", DeviceUnavailable, "has to have result, refused or failed"),
    ],
)
def test_what_is_no_result(monkeypatch: pytest.MonkeyPatch, line: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        asked(monkeypatch, Lines(line)).call("find", "call", {}, "k")
    assert type(raised.value) is error


def test_after_a_late_answer_no_line_is_taken_for_another_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = asked(monkeypatch, Lines(waits=True), timeout_s=0.05)
    with pytest.raises(DeviceUnavailable, match=r"find: no answer within 0\.05 s"):
        driver.call("find", "call", {}, "k")
    monkeypatch.setattr(caller.sys, "stdin", Lines('{"result": 1}'))
    with pytest.raises(CallRefused, match="an earlier call was not answered"):
        driver.call("find", "call", {}, "k")


def test_any_program_can_be_the_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLSET, encoding="utf-8")
    words = [sys.executable, "-m", "edgewright", "tools", "call", str(tmp_path / "tools.yaml"), "find", "code=A1"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        call: dict[str, Any] = json.loads(process.stdout.readline())["call"]
        process.stdin.write(json.dumps({"result": {"found": call["arguments"]["code"]}}) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"found": "A1"}
    assert process.returncode == 0
