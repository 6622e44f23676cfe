"""Functions of a Python file, each call in a process of its own, which is ended when its time is over.

Under `executors` of a toolset: `own: {type: python, file: /opt/shop/tools.py}`, and under a tool
`at: {function: process_refund}`, or nothing if the function has the tool's name. It gets the call's arguments by name,
and `key` if it takes one: the same for a repetition, another for a second wish. Its answer is any JSON. A ValueError
means that it refuses and has done nothing; after any other exception it is not known what it has done.

The process has an empty environment but for PATH, LANG and what `environment` lists, where secrets are.

Does not guard against: what the function does. It is the owner's code, and has the rights of this process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from devices.driver import Binding, CallRefused, DeviceUnavailable, DriverType, Needs, secret_from
from devices.drivers.only_calls import OnlyCalls
from devices.drivers.programs import ENVIRONMENT, run_program
from devices.yaml_file import Strict

WORKER = Path(__file__).with_name("worker.py")


class PythonSettings(Strict):
    """Which file, how long a call may take, and which variables of the environment its functions see."""

    type: Literal["python"]
    file: str = Field(pattern=r"\.py$")
    timeout_s: float = Field(default=10.0, gt=0)
    environment: tuple[str, ...] = Field(default=(), strict=False)


class PythonFunction(Strict):
    """Which function; "" is the one of the tool's own name."""

    function: str = Field(default="", pattern=r"^([A-Za-z_]\w*)?$")


class PythonDriver(OnlyCalls):
    """Calls functions, each in a process of its own. Safe to use from several threads."""

    def __init__(self, settings: PythonSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        del clock
        self._settings, self._bindings = settings, bindings

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Call a device's function; a ValueError of it is CallRefused."""
        settings = self._settings
        name = self._bindings[device].calls[action].function or device
        request = {"function": name, "arguments": dict(arguments), "key": key}
        if not Path(settings.file).is_file():
            raise CallRefused(f"there is no {settings.file}")
        environment = ENVIRONMENT | {one: secret_from(device, one) for one in settings.environment}
        words = [sys.executable, "-I", str(WORKER), os.path.abspath(settings.file)]  # noqa: PTH100 - links stay
        output = run_program(device, words, settings.timeout_s, json.dumps(request).encode(), environment)
        try:
            found = json.loads(output)
        except ValueError as error:
            raise DeviceUnavailable(f"{name} gave no answer") from error
        if "refused" in found:
            raise CallRefused(found["refused"])
        if "failed" in found:
            raise DeviceUnavailable(f"{name} failed: {found['failed']}")
        return found["answer"]

    def close(self) -> None:
        """Nothing is kept open."""


DRIVER = DriverType(
    settings=PythonSettings,
    address=PythonFunction,
    open=PythonDriver,
    call_address=PythonFunction,
    needs=lambda settings: Needs(reads=(settings.file,)),
)
