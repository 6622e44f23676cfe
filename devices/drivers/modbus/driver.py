"""Modbus TCP and RTU: coils, discrete inputs and registers of PLCs and meters.

Under `drivers` of a site file: `plc: {type: modbus, host: 192.168.1.20}` or `{type: modbus, serial: /dev/ttyUSB0}`.
Under a device: `driver: plc` and `at: {level_pct: {input: 4, scale: 0.1}, open: {coil: 2}}`.
Addresses are those on the wire, from 0 (a manual's 40001 is `holding: 0`).

Does not guard against: another master on the same registers; Modbus has neither passwords nor encryption.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Reading, reading_of
from devices.drivers.bus_lock import BusLock
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

WORDS = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f"}
TABLES = ("coil", "discrete", "holding", "input")


class ModbusSettings(Strict):
    """How to reach one server; `unit` is its address on the line."""

    type: Literal["modbus"]
    host: str = ""
    port: int = Field(default=502, ge=1, le=65535)
    serial: str = ""
    baud: int = Field(default=9600, ge=300)
    parity: Literal["N", "E", "O"] = "N"
    unit: int = Field(default=1, ge=0, le=247)
    timeout_s: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _require_one_way(self) -> ModbusSettings:
        if bool(self.host) == bool(self.serial):
            raise ValueError("a modbus driver needs either host (TCP) or serial (RTU)")
        return self


class Register(Strict):
    """Where one property is: one of coil, discrete, holding, input. value = raw * scale + offset."""

    coil: int | None = Field(default=None, ge=0, le=65535)
    discrete: int | None = Field(default=None, ge=0, le=65535)
    holding: int | None = Field(default=None, ge=0, le=65535)
    input: int | None = Field(default=None, ge=0, le=65535)
    words: Literal["int16", "uint16", "int32", "uint32", "float32"] = "uint16"
    word_order: Literal["big", "little"] = "big"
    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _require_one_table(self) -> Register:
        if sum(getattr(self, table) is not None for table in TABLES) != 1:
            raise ValueError(f"needs exactly one of {', '.join(TABLES)}")
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        return self

    @property
    def table(self) -> str:
        """One of TABLES."""
        return next(table for table in TABLES if getattr(self, table) is not None)

    @property
    def address(self) -> int:
        """From 0, as on the wire."""
        return int(getattr(self, self.table))

    @property
    def is_bit(self) -> bool:
        """Whether it is a coil or a discrete input."""
        return self.table in {"coil", "discrete"}

    @property
    def count(self) -> int:
        """How many bits or registers it takes."""
        return 1 if self.is_bit else struct.calcsize(f">{WORDS[self.words]}") // 2

    def to_value(self, raw: list[int], schema: DataSchema) -> Value:
        """Return the property's value for raw bits (0 or 1) or registers (0..65535).

        Raises:
            ValueError: the number stands for no value of the property.
        """
        if schema.type == "boolean":
            return any(raw)
        ordered = raw if self.word_order == "big" else raw[::-1]
        (number,) = (
            raw if self.is_bit else struct.unpack(f">{WORDS[self.words]}", struct.pack(f">{len(raw)}H", *ordered))
        )
        value = number * self.scale + self.offset
        if schema.type == "string":
            words = schema.enum or ()
            if not 0 <= value < len(words):
                raise ValueError(f"{value:g} stands for none of {', '.join(words)}")
            return words[int(value)]
        return round(value) if schema.type == "integer" else float(value)

    def to_raw(self, value: Value, schema: DataSchema) -> list[int]:
        """Return the bits or registers for a value of the property.

        Raises:
            ValueError: it does not fit the register.
        """
        number = (schema.enum or ()).index(value) if isinstance(value, str) else float(value)
        scaled = (number - self.offset) / self.scale
        if self.is_bit:
            return [int(bool(scaled))]
        try:
            packed = struct.pack(f">{WORDS[self.words]}", scaled if self.words == "float32" else round(scaled))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{value} does not fit {self.words}") from error
        raw = list(struct.unpack(f">{self.count}H", packed))
        return raw if self.word_order == "big" else raw[::-1]


class ModbusDriver:
    """One connection to one server. Safe to use from several threads."""

    def __init__(self, settings: ModbusSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._bindings = bindings
        self._client = _make_client(settings)
        self._lock = BusLock(self._client.give_up)

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; one that makes no sense is marked bad."""
        found: dict[str, Reading] = {}
        binding = self._bindings[device]
        for name, register in binding.at.items():
            raw = self._ask(device, f"read_{_METHODS[register.table]}", register.address, count=register.count)
            values = [int(bit) for bit in raw.bits[:1]] if register.is_bit else list(raw.registers)
            schema = binding.device.properties[name]
            found[name] = reading_of(partial(register.to_value, values, schema), schema, self._clock(), values[0])
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device, one request each, in the order given."""
        self._write(device, values, is_urgent=False)

    def write_now(self, device: str, values: dict[str, Value]) -> None:
        """Do what `write` does before all others; an answer that another thread waits for is given up."""
        self._write(device, values, is_urgent=True)

    def _write(self, device: str, values: dict[str, Value], *, is_urgent: bool) -> None:
        binding = self._bindings[device]
        for name, value in values.items():
            register = binding.at[name]
            raw = register.to_raw(value, binding.device.properties[name])
            if register.is_bit:
                self._ask(device, "write_coil", register.address, bool(raw[0]), is_urgent=is_urgent)
            else:
                self._ask(device, "write_registers", register.address, raw, is_urgent=is_urgent)

    def close(self) -> None:
        """Close the connection."""
        with self._lock.hold():
            self._client.close()

    def _ask(self, device: str, method: str, *arguments: Any, is_urgent: bool = False, **named: Any) -> Any:
        """Send one request, once. Raises DeviceUnavailable; the next request connects again."""
        from pymodbus.exceptions import ModbusException

        with self._lock.hold(is_urgent=is_urgent):
            self._client.is_given_up = False
            started_s = time.monotonic()
            try:
                if not self._client.connect():
                    raise DeviceUnavailable(f"{device}: no connection to {self._where()}")
                answer = getattr(self._client, method)(*arguments, device_id=self._settings.unit, **named)
            except (ModbusException, OSError) as error:
                self._client.close()  # what is still on its way must not be taken for the next answer
                waited_s = time.monotonic() - started_s
                raise DeviceUnavailable(f"{device}: {self._where()} gave no answer in {waited_s:.1f} s") from error
            if answer.function_code & ~ERROR_BIT != FUNCTIONS[method]:  # RTU has no number that says which answer it is
                self._client.close()
                raise DeviceUnavailable(f"{device}: {self._where()} answered another request")
            if answer.isError():
                raise DeviceUnavailable(f"{device}: {self._where()} refused {method} {arguments[0]}: {answer}")
            return answer

    def _where(self) -> str:
        return self._settings.serial or f"{self._settings.host}:{self._settings.port}"


_METHODS = {
    "coil": "coils",
    "discrete": "discrete_inputs",
    "holding": "holding_registers",
    "input": "input_registers",
}


# Function codes and the bit of an error. Source: Modbus specification 1.1b3, 6 and 7.
FUNCTIONS = {
    "read_coils": 1,
    "read_discrete_inputs": 2,
    "read_holding_registers": 3,
    "read_input_registers": 4,
    "write_coil": 5,
    "write_registers": 16,
}
ERROR_BIT = 0x80


def _make_client(settings: ModbusSettings) -> Any:
    """Return pymodbus's client, with `give_up`, which makes a wait for an answer in another thread fail at once."""
    from pymodbus.client import ModbusSerialClient, ModbusTcpClient

    class SerialClient(ModbusSerialClient):
        is_given_up = False

        def give_up(self) -> None:
            self.is_given_up = True

        def _in_waiting(self) -> int:  # pymodbus 3.16 asks this in a loop until an answer is there
            if self.is_given_up:
                raise OSError("given up for a stop")
            return int(super()._in_waiting())  # type: ignore[no-untyped-call]

    class TcpClient(ModbusTcpClient):
        is_given_up = False

        def give_up(self) -> None:
            if (link := self.socket) is not None:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what goes wrong is said once, by DeviceUnavailable
    # retries=0: whether to ask again is not for a library to decide where the question moves something
    if settings.serial:
        return SerialClient(
            settings.serial, baudrate=settings.baud, parity=settings.parity, timeout=settings.timeout_s, retries=0
        )
    return TcpClient(settings.host, port=settings.port, timeout=settings.timeout_s, retries=0)


def _problem_with(_: ModbusSettings, register: Register, is_written: bool) -> str:
    return "cannot be written: coil and holding can" if is_written and register.table not in {"coil", "holding"} else ""


DRIVER = DriverType(settings=ModbusSettings, address=Register, open=ModbusDriver, problem_with=_problem_with)
