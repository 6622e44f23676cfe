"""Functions that whoever started this process carries out: a call is printed, its result is read back.

Under `executors` of a toolset: `mine: {type: caller}`; a tool's `at` says nothing. Standard output gets a line
`{"call": {"name": "find", "arguments": {…}, "key": "…"}}`, and the next line of standard input is the answer:
`{"result": …}` of any JSON, `{"refused": "why"}` if nothing was done, `{"failed": "why"}` if nobody knows. The key is
the same for a repetition, another for a second wish.

Does not guard against: what the caller does. It has started this process.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from queue import Empty, Queue
from typing import Any, Literal

from pydantic import Field

from devices.driver import Binding, CallRefused, DeviceUnavailable, DriverType
from devices.drivers.only_calls import OnlyCalls, only_functions
from devices.yaml_file import Strict

_lines = threading.Lock()  # standard input and output are one, however many callers a toolset has


class CallerSettings(Strict):
    """How long an answer may take."""

    type: Literal["caller"]
    timeout_s: float = Field(default=60.0, gt=0)


class CallerTool(Strict):
    """A tool's place: the caller knows it by its name."""


class CallerDriver(OnlyCalls):
    """Asks the caller, one call at a time. Safe to use from several threads."""

    def __init__(self, settings: CallerSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        del bindings, clock
        self._settings = settings
        self._is_lost = False

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Print a call and return what comes back."""
        del action
        with _lines:
            if self._is_lost:
                raise CallRefused("an earlier call was not answered, and nobody knows whose answer comes next")
            print(json.dumps({"call": {"name": device, "arguments": dict(arguments), "key": key}}), flush=True)
            try:
                return _result_of(device, _read_line(self._settings.timeout_s))
            except TimeoutError as error:
                self._is_lost = True
                raise DeviceUnavailable(f"{device}: no answer within {self._settings.timeout_s:g} s") from error

    def close(self) -> None:
        """Nothing is kept open."""


def _read_line(timeout_s: float) -> str:
    """Return the next line of standard input, "" at its end. Raises TimeoutError; the line is then lost."""
    found: Queue[str] = Queue()
    threading.Thread(target=lambda: found.put(sys.stdin.readline()), name="caller", daemon=True).start()
    try:
        return found.get(timeout=timeout_s)
    except Empty as error:
        raise TimeoutError from error


def _result_of(device: str, line: str) -> Any:
    if not line:
        raise DeviceUnavailable(f"{device}: standard input has ended without an answer")
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise DeviceUnavailable(f"{device}: the answer is not JSON: {line.strip()[:80]}") from error
    if not isinstance(answer, dict) or len(answer) != 1 or not answer.keys() & {"result", "refused", "failed"}:
        raise DeviceUnavailable(f"{device}: the answer has to have result, refused or failed: {line.strip()[:80]}")
    if "refused" in answer:
        raise CallRefused(str(answer["refused"]))
    if "failed" in answer:
        raise DeviceUnavailable(f"{device}: {answer['failed']}")
    return answer["result"]


DRIVER = DriverType(
    settings=CallerSettings,
    address=CallerTool,
    open=CallerDriver,
    call_address=CallerTool,
    call_problem_with=only_functions,
)
