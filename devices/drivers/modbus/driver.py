"""Modbus TCP and RTU: coils, discrete inputs and registers of PLCs and meters.

Under `drivers` of a site file: `plc: {type: modbus, host: 192.168.1.20}` or `{type: modbus, serial: /dev/ttyUSB0}`.
Under a device: `driver: plc` and `at: {level_pct: {input: 4, scale: 0.1}, open: {coil: 2}}` (register.py has all keys).
Addresses are those on the wire, from 0 (a manual's 40001 is `holding: 0`). A gateway's units share its connection.

A register that the server does not have costs its own property only. A unit or gateway that is busy is asked again
within the time limit; a write that may have arrived already is not sent again.

Does not guard against: another master on the same registers; Modbus has neither passwords nor encryption. Bits of a
register are read, changed and written back, unless its `write_function` is 22: what the server changes there in
between is lost.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.drivers.bus_lock import BusLock
from devices.drivers.modbus.register import WRITE_FUNCTIONS, Block, Register, plan_blocks
from devices.site.schema import Value
from devices.yaml_file import Strict

# Function codes, the bit of an error and its codes. Source: Modbus application protocol 1.1b3, 6 and 7.
READS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
METHODS = {
    1: "read_coils",
    2: "read_discrete_inputs",
    3: "read_holding_registers",
    4: "read_input_registers",
    5: "write_coil",
    6: "write_register",
    15: "write_coils",
    16: "write_registers",
    22: "mask_write_register",
}
ERROR_BIT = 0x80
EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
ILLEGAL_FUNCTION, ACKNOWLEDGE = 1, 5
MASK_WRITE = 22
ABSENT = {1, 2, 3}  # nothing was done, and the server has no such register or table
REPEATED_READS = {6, 10, 11}
REPEATED_WRITES = {6, 10}  # not 11: the device behind the gateway may have done it
PAUSE_S = 0.1  # before asking again


class ModbusSettings(Strict):
    """How to reach one server; `unit` is its address on the line, for properties that name none."""

    type: Literal["modbus"]
    host: str = ""
    port: int = Field(default=502, ge=1, le=65535)
    serial: str = ""
    baud: int = Field(default=9600, ge=300)
    parity: Literal["N", "E", "O"] = "N"
    unit: int = Field(default=1, ge=0, le=255)
    timeout_s: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _require_one_way(self) -> ModbusSettings:
        if bool(self.host) == bool(self.serial):
            raise ValueError("a modbus driver needs either host (TCP) or serial (RTU)")
        return self


class _Refused(DeviceUnavailable):
    """The server answered with an exception."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ModbusDriver:
    """One connection to one server. Safe to use from several threads."""

    def __init__(self, settings: ModbusSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._bindings = bindings
        self._blocks = {name: plan_blocks(binding.at, settings.unit) for name, binding in bindings.items()}
        self._client = _make_client(settings)
        self._lock = BusLock(self._client.give_up)

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; one that makes no sense is bad, one that is not there unavailable."""
        found: dict[str, Reading] = {}
        for block in self._blocks[device]:
            found |= self._read_block(device, block)
        return {name: found[name] for name in self._bindings[device].at}

    def _read_block(self, device: str, block: Block) -> dict[str, Reading]:
        binding = self._bindings[device]
        try:
            raw = self._ask(device, block)
        except _Refused as error:
            if error.code not in ABSENT:
                raise
            if len(block.names) == 1:
                return {block.names[0]: Reading("", self._clock(), "unavailable")}
            single = [one for name in block.names for one in plan_blocks({name: binding.at[name]}, block.unit)]
            # For good: a server without one register of them, or with less room in an answer, stays so.
            blocks = [[other] if other != block else single for other in self._blocks[device]]
            self._blocks[device] = [one for some in blocks for one in some]
            return {name: reading for one in single for name, reading in self._read_block(device, one).items()}
        return {name: self._reading(binding, name, block, raw) for name in block.names}

    def _ask(self, device: str, block: Block) -> list[int]:
        function = READS[block.table]
        exchange = partial(self._exchange, device, block.unit, function, block.address, count=block.count)
        answer = self._repeat(exchange, REPEATED_READS)
        if answer.isError():
            raise self._refused(device, block.unit, function, block.address, answer.exception_code)
        return [int(bit) for bit in answer.bits] if function < 3 else list(answer.registers)

    def _reading(self, binding: Binding, name: str, block: Block, raw: list[int]) -> Reading:
        register, schema = binding.at[name], binding.device.properties[name]
        start = register.address - block.address
        own = raw[start : start + register.count]
        if register.has_no_value(own, schema):
            return Reading("", self._clock(), "unavailable")
        return reading_of(partial(register.to_value, own, schema), schema, self._clock(), own[0])

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device, one request each, in the order given."""
        self._write(device, values, is_urgent=False)

    def write_now(self, device: str, values: dict[str, Value]) -> None:
        """Do what `write` does before all others; an answer that another thread waits for is given up."""
        self._write(device, values, is_urgent=True)

    def _write(self, device: str, values: dict[str, Value], *, is_urgent: bool) -> None:
        binding = self._bindings[device]
        for name, value in values.items():
            try:
                binding.at[name].to_raw(value, binding.device.properties[name])
            except ValueError as error:  # before the first is sent
                raise DeviceUnavailable(f"{device}.{name}: {error}") from error
        for name, value in values.items():
            register = binding.at[name]
            for function in register.write_functions:
                try:
                    self._write_one(device, name, value, function, is_urgent)
                    break
                except _Refused as error:
                    if error.code != ILLEGAL_FUNCTION or function == register.write_functions[-1]:
                        raise

    def _write_one(self, device: str, name: str, value: Value, function: int, is_urgent: bool) -> None:
        register, schema = self._bindings[device].at[name], self._bindings[device].device.properties[name]
        unit = register.unit_or(self._settings.unit)

        def exchange() -> Any:
            before: list[int] = []
            if register.bit is not None and function != MASK_WRITE:
                answer = self._exchange(device, unit, READS["holding"], register.address, count=register.count)
                if answer.isError():
                    return answer
                before = answer.registers
            raw = register.to_raw(value, schema, before)
            if function == MASK_WRITE:
                kept = raw[0] ^ register.to_raw(value, schema, [0xFFFF])[0]
                masks = {"and_mask": kept, "or_mask": raw[0]}
                return self._exchange(device, unit, function, address=register.address, **masks)
            plain = [bool(bit) for bit in raw] if register.is_bit else raw
            return self._exchange(device, unit, function, register.address, plain if function > 14 else plain[0])

        answer = self._repeat(exchange, REPEATED_WRITES, is_urgent=is_urgent)
        if answer.isError() and answer.exception_code != ACKNOWLEDGE:  # that is "taken, and it will take long"
            raise self._refused(device, unit, function, register.address, answer.exception_code)

    def close(self) -> None:
        """Close the connection."""
        with self._lock.hold():
            self._client.close()

    def _repeat(self, exchange: Callable[[], Any], codes: set[int], *, is_urgent: bool = False) -> Any:
        """Return the answer of an exchange; made again within the time limit while it is one of some exceptions."""
        until_s = time.monotonic() + self._settings.timeout_s
        while True:
            with self._lock.hold(is_urgent=is_urgent):
                answer = exchange()
            if not (answer.isError() and answer.exception_code in codes) or time.monotonic() + PAUSE_S > until_s:
                return answer
            time.sleep(PAUSE_S)  # the line is free for other units

    def _exchange(self, device: str, unit: int, function: int, *arguments: Any, **named: Any) -> Any:
        """Send one request, once, with the line held. Raises DeviceUnavailable; the next request connects again."""
        from pymodbus.exceptions import ModbusException

        self._client.is_given_up = False
        started_s = time.monotonic()
        try:
            if not self._client.connect():
                raise DeviceUnavailable(f"{device}: no connection to {self._where()}")
            answer = getattr(self._client, METHODS[function])(*arguments, device_id=unit, **named)
        except (ModbusException, OSError) as error:
            self._client.close()  # what is still on its way must not be taken for the next answer
            waited_s = time.monotonic() - started_s
            raise DeviceUnavailable(f"{device}: {self._where()} gave no answer in {waited_s:.1f} s") from error
        count = len(answer.bits or answer.registers) if function in READS.values() and not answer.isError() else None
        # RTU has no number that says which answer it is
        if answer.function_code & ~ERROR_BIT != function or (count is not None and count < named["count"]):
            self._client.close()
            raise DeviceUnavailable(f"{device}: {self._where()} answered another request")
        return answer

    def _refused(self, device: str, unit: int, function: int, address: int, code: int) -> _Refused:
        request = (
            f"{METHODS[function]} {address} with exception {code}, {EXCEPTIONS.get(code, 'which is no known one')}"
        )
        return _Refused(f"{device}: unit {unit} of {self._where()} answered {request}", code)

    def _where(self) -> str:
        return self._settings.serial or f"{self._settings.host}:{self._settings.port}"


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
    is_writable = register.table in WRITE_FUNCTIONS
    return "" if is_writable or not is_written else "cannot be written: coil and holding can"


def _needs(settings: ModbusSettings) -> Needs:
    if not settings.serial:
        return Needs({"pymodbus.client": "pymodbus"}, peers=((settings.host, settings.port),))
    devices = () if "://" in settings.serial else (settings.serial,)  # pyserial also takes URLs, as socket://…
    return Needs({"pymodbus.client": "pymodbus", "serial": "pyserial"}, devices)


DRIVER = DriverType(
    settings=ModbusSettings, address=Register, open=ModbusDriver, problem_with=_problem_with, needs=_needs
)
