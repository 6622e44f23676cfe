"""An I2C bus whose chips measure a simulated world, behind a Unix socket, for a bus has no network."""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from devices.driver import Binding
from devices.drivers.i2c.driver import (
    ADS1115_CONFIG,
    ADS1115_VOLTS,
    BH1750_COUNTS_PER_LUX,
    BH1750_MEASURE,
    SHT3X_MEASURE,
    I2cSettings,
    Sensor,
    sht3x_crc,
)
from devices.simulation.peer import RealTimeWorld
from devices.simulation.socket_peer import PeerServer

NOISE = b"\xff"


class I2cPeer:
    """The chips behind one `i2c` driver of a site, whose `bus` is a path."""

    def __init__(self, settings: I2cSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._settings, self._bindings, self._world = settings, bindings, world
        self._asked: dict[int, bytes] = {}
        self._channels: dict[int, int] = {}
        self._server = PeerServer(Path(str(settings.bus)), self._carry)

    @property
    def where(self) -> str:
        """The bus."""
        return f"I2C bus {self._settings.bus}"

    def start(self) -> None:
        """Offer the bus. Raises OSError if it is a real one, or its path is taken."""
        if not isinstance(self._settings.bus, str):
            raise OSError(errno.ENOTSUP, "it is real; the bus of a simulated peer is the path of a socket")
        self._server.start()

    def stop(self) -> None:
        """Take the bus away."""
        self._server.stop()

    def _carry(self, messages: list[tuple[int, str | int]]) -> list[str]:
        """Carry messages out, as the kernel does: bytes to a chip, or how many are wanted of it; both in hex."""
        answers = []
        for address, message in messages:
            self._require_answer(address)
            if isinstance(message, str):
                self._take(address, bytes.fromhex(message))
            else:
                raw = NOISE * message if self._world.faults.garbled else self._answer(address)
                answers.append(raw[:message].hex())
        return answers

    def _sensors(self, address: int) -> list[tuple[str, str, Sensor]]:
        return [
            (device, name, sensor)
            for device, binding in self._bindings.items()
            for name, sensor in binding.at.items()
            if sensor.address == address
        ]

    def _require_answer(self, address: int) -> None:
        time.sleep(self._world.faults.delay_s)
        sensors = self._sensors(address)
        if not sensors or self._world.read(sensors[0][0]) is None:
            raise OSError(errno.EREMOTEIO, "no acknowledge")

    def _take(self, address: int, written: bytes) -> None:
        self._asked[address] = written
        if written[0] == ADS1115_CONFIG and len(written) == 3:
            self._channels[address] = written[1] >> 4 & 3

    def _answer(self, address: int) -> bytes:
        """Return what a chip answers to what it was asked last."""
        asked, sensors = self._asked[address], self._sensors(address)
        chip = sensors[0][2].chip
        if chip == "sht3x":
            assert asked == SHT3X_MEASURE
            return self._sht3x(sensors)
        if chip == "bh1750":
            assert asked == BH1750_MEASURE
            return round(self._measured(*sensors[0]) * BH1750_COUNTS_PER_LUX).to_bytes(2)
        if chip == "ads1115":
            (wanted,) = [one for one in sensors if one[2].channel == self._channels[address]]
            return struct.pack(">h", round(self._measured(*wanted) / ADS1115_VOLTS))
        (wanted,) = [one for one in sensors if one[2].register_ == asked[0]]
        return struct.pack(wanted[2].word_format, round(self._measured(*wanted)))

    def _sht3x(self, sensors: list[tuple[str, str, Sensor]]) -> bytes:
        shown = {one[2].quantity: self._measured(*one) for one in sensors}
        shares = ((shown.get("temperature", 0.0) + 45) / 175, shown.get("humidity", 0.0) / 100)
        words = [round(min(max(share, 0.0), 1.0) * 65535).to_bytes(2) for share in shares]
        return b"".join(word + bytes([sht3x_crc(word)]) for word in words)

    def _measured(self, device: str, name: str, sensor: Sensor) -> float:
        values = self._world.read(device)
        assert values is not None
        return (float(values[name]) - sensor.offset) / sensor.scale
