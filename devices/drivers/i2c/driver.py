"""Sensors on an I2C bus of the box, through smbus2: SHT3x, BH1750, ADS1115, and plain registers.

Under `drivers` of a site file: `bus: {type: i2c, bus: 1}`. Under a device, for each property,
`at: {temperature_c: {chip: sht3x, address: 0x44, quantity: temperature}}`, `{chip: bh1750, address: 0x23}`,
`{chip: ads1115, address: 0x48, channel: 0, scale: 40}` or `{chip: registers, address: 0x48, register: 0}`.
value = what the chip measures (degrees Celsius, percent, lux, volts, or the register's number) * scale + offset.
Sources: Sensirion SHT3x-DIS data sheet, 4.3 and 4.12; ROHM BH1750FVI data sheet, measurement procedure; Texas
Instruments ADS1115 data sheet (SBAS444), 8.1 to 8.5.

Does not guard against: two programs that measure with the same chip at once; a bus has no locks across processes.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.simulation.socket_peer import ask
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

SHT3X_MEASURE, SHT3X_WAIT_S = b"\x24\x00", 0.016  # single shot, high repeatability, no clock stretching
BH1750_MEASURE, BH1750_WAIT_S, BH1750_COUNTS_PER_LUX = b"\x20", 0.18, 1.2  # once, 1 lux resolution
ADS1115_CONFIG, ADS1115_CONVERSION, ADS1115_WAIT_S = 0x01, 0x00, 0.01
ADS1115_ONCE = 0xC383  # start; single-ended channel 0; +-4.096 V; once; 128 samples a second; no comparator
ADS1115_VOLTS = 4.096 / 32768
READS = 0x01  # I2C_M_RD of linux/i2c.h
WORDS = {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H"}


class I2cSettings(Strict):
    """Which bus: its number, as in /dev/i2c-1, or the path of a simulated peer's socket."""

    type: Literal["i2c"]
    bus: int | str


class Sensor(Strict):
    """Where one property is: a chip's address and what of it. `word_order` is of the bytes of a register."""

    chip: Literal["sht3x", "bh1750", "ads1115", "registers"]
    address: int = Field(ge=0x03, le=0x77)
    quantity: Literal["temperature", "humidity"] = "temperature"
    channel: int = Field(default=0, ge=0, le=3)
    register_: int | None = Field(default=None, ge=0, le=255, alias="register")
    words: Literal["int8", "uint8", "int16", "uint16"] = "int16"
    word_order: Literal["big", "little"] = "big"
    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _require_register(self) -> Sensor:
        if (self.chip == "registers") != (self.register_ is not None):
            raise ValueError("register goes with chip: registers, and only with it")
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        return self

    @property
    def word_format(self) -> str:
        """The register's bytes, as struct has them."""
        return (">" if self.word_order == "big" else "<") + WORDS[self.words]


class Bus(Protocol):
    """What is used of smbus2.SMBus."""

    def i2c_rdwr(self, *messages: Any) -> None:
        """Carry messages out; those that read are filled."""
        ...

    def close(self) -> None:
        """Let go of the bus."""
        ...


class SimulatedBus:
    """A bus whose chips are simulated: its messages go to the socket of a peer (peer.py)."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def i2c_rdwr(self, *messages: Any) -> None:
        """Carry messages out; those that read are filled."""
        asked = [[one.addr, one.len if one.flags & READS else bytes(one).hex()] for one in messages]
        answers = iter(ask(self._path, asked))
        for message in messages:
            if message.flags & READS:
                for index, byte in enumerate(bytes.fromhex(next(answers))):
                    message.buf[index] = byte

    def close(self) -> None:
        """Nothing is held between messages."""


class I2cDriver:
    """One bus. Safe to use from several threads."""

    def __init__(self, settings: I2cSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock
        self._bus: Bus | None = None
        self._lock = threading.Lock()

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device, measured now; what makes no sense is marked bad."""
        binding = self._bindings[device]
        found: dict[str, Reading] = {}
        for name, sensor in binding.at.items():
            schema = binding.device.properties[name]
            measured = self._measure(device, sensor)
            found[name] = reading_of(partial(_to_value, measured, sensor, schema), schema, self._clock())
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Sensors are only read."""
        raise DeviceUnavailable(f"{device} is a sensor")

    def close(self) -> None:
        """Let go of the bus."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _measure(self, device: str, sensor: Sensor) -> float | None:
        """Return what a chip measures, or None if its answer is damaged. Raises DeviceUnavailable."""
        with self._lock:
            try:
                if self._bus is None:
                    self._bus = _open_bus(self._settings.bus)
                return MEASURE[sensor.chip](self._bus, sensor)
            except OSError as error:
                self._close()
                where = f"chip 0x{sensor.address:02x} on I2C bus {self._settings.bus}"
                raise DeviceUnavailable(f"{device}: {where} gave no answer: {error.strerror or error}") from error


def _open_bus(bus: int | str) -> Bus:
    if isinstance(bus, str):
        return SimulatedBus(bus)
    from smbus2 import SMBus

    opened: Bus = SMBus(bus)
    return opened


def _exchange(bus: Bus, address: int, sent: bytes, wanted: int, wait_s: float = 0.0) -> bytes:
    """Send bytes and read some: in one transaction, or with a pause for the chip to measure."""
    from smbus2 import i2c_msg

    question, answer = i2c_msg.write(address, sent), i2c_msg.read(address, wanted)
    if wait_s:
        bus.i2c_rdwr(question)
        time.sleep(wait_s)
        bus.i2c_rdwr(answer)
    else:
        bus.i2c_rdwr(question, answer)
    return bytes(answer)


def _measure_sht3x(bus: Bus, sensor: Sensor) -> float | None:
    raw = _exchange(bus, sensor.address, SHT3X_MEASURE, 6, SHT3X_WAIT_S)
    word = raw[:3] if sensor.quantity == "temperature" else raw[3:]
    if sht3x_crc(word[:2]) != word[2]:
        return None
    share = int.from_bytes(word[:2]) / 65535
    return -45 + 175 * share if sensor.quantity == "temperature" else 100 * share


def sht3x_crc(word: Sequence[int]) -> int:
    """Return the checksum of two bytes: CRC-8, polynomial 0x31, start 0xFF."""
    crc = 0xFF
    for byte in word:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _measure_bh1750(bus: Bus, sensor: Sensor) -> float:
    return int.from_bytes(_exchange(bus, sensor.address, BH1750_MEASURE, 2, BH1750_WAIT_S)) / BH1750_COUNTS_PER_LUX


def _measure_ads1115(bus: Bus, sensor: Sensor) -> float:
    from smbus2 import i2c_msg

    config = ADS1115_ONCE | sensor.channel << 12
    bus.i2c_rdwr(i2c_msg.write(sensor.address, struct.pack(">BH", ADS1115_CONFIG, config)))
    time.sleep(ADS1115_WAIT_S)
    (raw,) = struct.unpack(">h", _exchange(bus, sensor.address, bytes([ADS1115_CONVERSION]), 2))
    return float(raw) * ADS1115_VOLTS


def _measure_register(bus: Bus, sensor: Sensor) -> float:
    assert sensor.register_ is not None
    size = struct.calcsize(sensor.word_format)
    (raw,) = struct.unpack(sensor.word_format, _exchange(bus, sensor.address, bytes([sensor.register_]), size))
    return float(raw)


MEASURE: dict[str, Callable[[Bus, Sensor], float | None]] = {
    "sht3x": _measure_sht3x,
    "bh1750": _measure_bh1750,
    "ads1115": _measure_ads1115,
    "registers": _measure_register,
}


def _to_value(measured: float | None, sensor: Sensor, schema: DataSchema) -> Value:
    if measured is None:
        raise ValueError("the checksum is wrong")
    value = measured * sensor.scale + sensor.offset
    if schema.type == "boolean":
        return bool(value)
    if schema.type == "string":
        raise ValueError("a chip has no words")
    return round(value) if schema.type == "integer" else value


def _problem_with(_: I2cSettings, sensor: Sensor, is_written: bool) -> str:
    return "cannot be written: sensors are only read" if is_written else ""


def _needs(settings: I2cSettings) -> Needs:
    bus = settings.bus
    return Needs({"smbus2": "smbus2"}, devices=(bus if isinstance(bus, str) else f"/dev/i2c-{bus}",))


DRIVER = DriverType(settings=I2cSettings, address=Sensor, open=I2cDriver, problem_with=_problem_with, needs=_needs)
