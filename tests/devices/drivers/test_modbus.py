"""Modbus beyond the contract of all drivers, against pymodbus's own server: what its registers hold is set by hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import DeviceUnavailable
from devices.drivers.registry import SiteDriver, open_driver
from devices.site.site import Site, load_site
from devices.site.tools import Command
from edgewright import main
from tests.ports import free_port

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Asked = tuple[int, int, int, int]  # unit, function, address, count of registers


class Plant:
    """pymodbus's server with units whose holding registers are given; what is not given it does not have.

    `refuse` is asked before each answer: an exception code, or None to answer. `asked` is what came.
    """

    def __init__(self, units: dict[int, list[SimData]], port: int) -> None:
        self.asked: list[Asked] = []
        self.refuse: Callable[[Asked], ExcCodes | None] = lambda asked: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        devices = [SimDevice(unit, simdata=data, action=self._action_of(unit)) for unit, data in units.items()]
        self._server = self._do(self._make(devices, port))

    def _action_of(self, unit: int) -> Any:
        async def action(function: int, start: int, address: int, count: int, registers: Any, written: Any) -> Any:
            del start, registers
            if written is None and function > 4:
                return None  # the echo of a write
            self.asked.append((unit, function, address, count))
            return self.refuse(self.asked[-1])

        return action

    async def _make(self, devices: list[SimDevice], port: int) -> ModbusTcpServer:
        server = ModbusTcpServer(devices, address=("127.0.0.1", port))
        await server.serve_forever(background=True)
        return server

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def registers(self, address: int, count: int, unit: int = 1) -> list[int]:
        return list(self._do(self._server.context.async_getValues(unit, 3, address, count)))

    def close(self) -> None:
        self._do(self._server.shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def plant(
    folder: Path, data: list[SimData] | dict[int, list[SimData]], at: str, kinds: str = "", actions: str = ""
) -> Iterator[tuple[Plant, SiteDriver, Site]]:
    """Give a server, a driver for the one device `it` on it, and its site. Properties without a kind are numbers."""
    port, known = free_port(), dict(part.split(": ", 1) for part in kinds.split("; ") if part)
    names = [part.split(":")[0].strip() for part in at.split("\n") if part.strip()]
    lines = [f"      {name}: {known.get(name, '{type: number, minimum: -1e9, maximum: 1e9}')}" for name in names]
    file = folder / "plant.yaml"
    file.write_text(
        "schema: site/v1\nname: plant\ntitle: a plant\n"
        f"drivers: {{plc: {{type: modbus, host: 127.0.0.1, port: {port}, timeout_s: 0.5}}}}\n"
        "devices:\n  it:\n    kind: machine\n    driver: plc\n    properties:\n"
        + "\n".join(lines)
        + (f"\n    actions: {actions}" if actions else "")
        + "\n    at:\n"
        + "\n".join(f"      {line.strip()}" for line in at.split("\n") if line.strip())
        + "\n",
        encoding="utf-8",
    )
    site = load_site(file)
    server = Plant(data if isinstance(data, dict) else {1: data}, port)
    driver = open_driver(site, lambda: 1.0)
    try:
        yield server, driver, site
    finally:
        driver.close()
        server.close()


def values(driver: SiteDriver) -> dict[str, Any]:
    return {
        name: reading.value if reading.quality == "good" else reading.quality
        for name, reading in driver.read("it").items()
    }


def test_what_pymodbus_wrote_into_registers_is_read(tmp_path: Path) -> None:
    data = [
        SimData(0, values=-123456, datatype=DataType.INT32),
        SimData(2, values=2**40 + 1, datatype=DataType.UINT64),
        SimData(6, values=230.4, datatype=DataType.FLOAT32),
        SimData(8, values=-0.001, datatype=DataType.FLOAT64),
        SimData(12, values="eco ", datatype=DataType.STRING),
        SimData(20, values=[0xE979, 0x42F6, 0x79E9, 0xF642], datatype=DataType.REGISTERS),
    ]
    at = """
        power: {holding: 0, words: int32, scale: 0.1}
        energy: {holding: 2, words: uint64}
        volts: {holding: 6, words: float32}
        drift: {holding: 8, words: float64, scale: 1000, offset: 20}
        mode: {holding: 12, words: string, registers: 2}
        swapped: {holding: 20, words: float32, word_order: CDAB}
        reversed: {holding: 22, words: float32, word_order: DCBA}
    """
    kinds = "mode: {type: string, enum: [heat, eco]}; energy: {type: integer, minimum: 0, maximum: 1.9e19}"
    with plant(tmp_path, data, at, kinds) as (server, driver, _):
        assert values(driver) == {
            "power": -12345.6,
            "energy": 2**40 + 1,
            "volts": 230.4,
            "drift": 19.0,
            "mode": "eco",
            "swapped": 123.456,
            "reversed": 123.456,
        }
        assert server.asked == [(1, 3, 0, 14), (1, 3, 20, 4)]  # two blocks: nobody asks for 14 to 19


def test_an_absent_register_costs_its_own_property_only(tmp_path: Path) -> None:
    data = [
        SimData(0, values=[230, 50], datatype=DataType.REGISTERS),
        SimData(3, values=7, datatype=DataType.REGISTERS),
    ]
    at = "volts: {holding: 0}\nhertz: {holding: 1}\namps: {holding: 2}\nwatts: {holding: 3}"
    action = "{set: {input: {watts: {type: integer, minimum: 0, maximum: 9}}, writes: {watts: $watts},"
    action += " requires: [{property: it.NAME, above: 1}]}}"
    for name, status in (("hertz", "done"), ("amps", "refused")):
        with plant(tmp_path, data, at, actions=action.replace("NAME", name)) as (server, driver, site):
            assert values(driver) == {"volts": 230, "hertz": 50, "amps": "unavailable", "watts": 7}
            assert server.asked == [(1, 3, 0, 1), (1, 3, 1, 1), (1, 3, 3, 1)]  # the whole was refused before
            server.asked.clear()
            assert values(driver)["amps"] == "unavailable"  # is asked again: it may have come
            broker = Broker(site, driver, Journal(), clock=lambda: 1.0)
            outcome = broker.execute(Command("it", "set", {"watts": 8}))
            assert outcome.status == status  # an interlock on what is not there never holds
            assert server.registers(3, 1) == [8 if status == "done" else 7]


def test_a_register_that_comes_is_read(tmp_path: Path) -> None:
    data = [SimData(0, values=[1, 2], datatype=DataType.REGISTERS)]
    with plant(tmp_path, data, "a: {holding: 0}\nb: {holding: 1}") as (server, driver, _):
        server.refuse = lambda asked: ExcCodes.ILLEGAL_ADDRESS if asked[2] + asked[3] > 1 else None
        assert values(driver) == {"a": 1, "b": "unavailable"}
        assert server.asked == [(1, 3, 0, 2), (1, 3, 0, 1), (1, 3, 1, 1)]
        server.asked.clear()
        server.refuse = lambda asked: None
        assert values(driver) == {"a": 1, "b": 2}
        assert server.asked == [(1, 3, 0, 1), (1, 3, 1, 1)]  # what was refused together is asked for singly from now on


def test_nothing_measured_is_unavailable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [
        SimData(0, values=float("nan"), datatype=DataType.FLOAT32),
        SimData(2, values=[0x8000, 0xFFFF, 21], datatype=DataType.REGISTERS),
    ]
    at = "a: {holding: 0, words: float32}\nb: {holding: 2, words: int16}\nc: {holding: 3}\nd: {holding: 4}"
    with plant(tmp_path, data, at) as (_, driver, site):
        assert values(driver) == {"a": "unavailable", "b": "unavailable", "c": "unavailable", "d": 21}
        assert Broker(site, driver, Journal()).state() == {"it": {"d": 21}}
        assert main(["devices", "read", "it", "--site", str(tmp_path / "plant.yaml"), "--live"]) == 0
        assert "The it d is 21. No reading: a, b, c." in capsys.readouterr().out


@pytest.mark.parametrize("code", [ExcCodes.DEVICE_BUSY, ExcCodes.GATEWAY_PATH_UNAVIABLE, ExcCodes.GATEWAY_NO_RESPONSE])
def test_a_busy_unit_is_asked_again_and_then_named(code: ExcCodes, tmp_path: Path) -> None:
    data = [SimData(0, values=[5], datatype=DataType.REGISTERS)]
    with plant(tmp_path, data, "a: {holding: 0}") as (server, driver, _):
        server.refuse = lambda asked: code if len(server.asked) <= 2 else None
        assert values(driver) == {"a": 5} and len(server.asked) == 3
        server.refuse, started_s = lambda asked: code, time.monotonic()
        with pytest.raises(
            DeviceUnavailable, match=f"^it: unit 1 of .* read_holding_registers 0 with exception {int(code)}, "
        ):
            driver.read("it")
        assert 0.2 < time.monotonic() - started_s < 1.0  # the time limit is 0.5 s


def test_a_write_is_repeated_only_if_it_was_not_done(tmp_path: Path) -> None:
    data = [SimData(0, values=[5], datatype=DataType.REGISTERS)]
    with plant(tmp_path, data, "a: {holding: 0}") as (server, driver, _):
        for code in (ExcCodes.DEVICE_BUSY, ExcCodes.GATEWAY_PATH_UNAVIABLE):
            server.asked.clear()
            server.refuse = lambda asked, code=code: code if len(server.asked) <= 2 else None  # type: ignore[misc]
            (driver.write_now if code == ExcCodes.DEVICE_BUSY else driver.write)("it", {"a": 6})  # a stop, too
            assert len(server.asked) == 3 and server.registers(0, 1) == [6]
        server.asked.clear()
        server.refuse = lambda asked: ExcCodes.GATEWAY_NO_RESPONSE  # the device behind it may have done it
        with pytest.raises(DeviceUnavailable, match="exception 11, gateway target device failed to respond"):
            driver.write("it", {"a": 7})
        assert len(server.asked) == 1
        server.refuse = lambda asked: ExcCodes.ACKNOWLEDGE  # taken, and takes long: the read-back tells
        driver.write("it", {"a": 7})


def test_a_busy_unit_does_not_hold_up_the_others(tmp_path: Path) -> None:
    data = {
        2: [SimData(0, values=[5], datatype=DataType.REGISTERS)],
        3: [SimData(0, values=[6], datatype=DataType.REGISTERS)],
    }
    with plant(tmp_path, data, "a: {holding: 0, unit: 2}\nb: {holding: 0, unit: 3}") as (server, driver, site):
        assert values(driver) == {"a": 5, "b": 6}
        assert [asked[0] for asked in server.asked] == [2, 3]
        driver.write("it", {"b": 9})
        assert server.registers(0, 1, unit=3) == [9] and server.registers(0, 1, unit=2) == [5]
        server.refuse = lambda asked: ExcCodes.DEVICE_BUSY if asked[0] == 2 else None
        waiting = threading.Thread(target=Broker(site, driver, Journal()).state)
        waiting.start()
        time.sleep(0.05)
        started_s = time.monotonic()
        driver.write("it", {"b": 8})
        assert time.monotonic() - started_s < 0.2 and waiting.is_alive()
        waiting.join()


def test_the_function_that_a_server_wants(tmp_path: Path) -> None:
    data = [SimData(0, values=[0] * 8, datatype=DataType.REGISTERS)]
    at = """
        a: {holding: 0}
        b: {holding: 1, write_function: 16}
        c: {holding: 2, words: int32}
        d: {holding: 4, write_function: 6}
    """
    with plant(tmp_path, data, at) as (server, driver, _):
        driver.write("it", {"a": 1, "b": 2, "c": 3, "d": 4})
        assert [asked[1] for asked in server.asked] == [6, 16, 16, 6] and server.registers(0, 5) == [1, 2, 0, 3, 4]
        server.asked.clear()
        server.refuse = lambda asked: ExcCodes.ILLEGAL_FUNCTION if asked[1] == 6 else None
        driver.write("it", {"a": 7})  # a server that knows only 16
        assert [asked[1] for asked in server.asked] == [6, 16] and server.registers(0, 1) == [7]
        with pytest.raises(DeviceUnavailable, match="exception 1, illegal function"):
            driver.write("it", {"d": 9})
        server.asked.clear()
        with pytest.raises(DeviceUnavailable, match=r"it\.c: 3000000000\.0 does not fit int32"):
            driver.write("it", {"a": 1, "c": 3e9})
        assert not server.asked  # nothing is half done


def test_coils_are_written_singly_and_together(tmp_path: Path) -> None:
    data = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    with plant(
        tmp_path, data, "a: {coil: 0}\nb: {coil: 0, write_function: 15}", "a: {type: boolean}; b: {type: boolean}"
    ) as (
        server,
        driver,
        _,
    ):
        driver.write("it", {"a": True})
        assert values(driver) == {"a": True, "b": True}
        driver.write("it", {"b": False})
        assert values(driver) == {"a": False, "b": False}
        assert [asked[1] for asked in server.asked] == [5, 1, 15, 1]


def test_a_bit_is_changed_and_its_neighbours_stay(tmp_path: Path) -> None:
    data = [SimData(0, values=[0b1010_0101, 0xF00F], datatype=DataType.REGISTERS)]
    at = "a: {holding: 0, bit: 1}\nb: {holding: 1, bit: 8, bits: 2, word_order: BADC, write_function: 22}"
    with plant(tmp_path, data, at, "a: {type: boolean}; b: {type: integer, minimum: 0, maximum: 3}") as (
        server,
        driver,
        _,
    ):
        assert values(driver) == {"a": False, "b": 3}
        server.asked.clear()
        driver.write("it", {"a": True})
        assert server.registers(0, 2) == [0b1010_0111, 0xF00F]
        driver.write("it", {"b": 1})  # its bits 8 and 9 are 0 and 1 on the wire
        assert server.registers(0, 2) == [0b1010_0111, 0xF00D]
        assert [asked[1] for asked in server.asked if asked[1] != 3 or asked[3] == 1] == [3, 6, 22]


def test_fewer_registers_than_asked_for_are_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymodbus.client import ModbusTcpClient

    data = [SimData(0, values=[1, 2], datatype=DataType.REGISTERS)]
    with plant(tmp_path, data, "a: {holding: 0, words: int32}") as (_, driver, _site):
        whole = ModbusTcpClient.read_holding_registers
        monkeypatch.setattr(
            ModbusTcpClient,
            "read_holding_registers",
            lambda self, at, *, count, **rest: whole(self, at, count=1, **rest),
        )
        with pytest.raises(DeviceUnavailable, match="answered another request"):
            driver.read("it")
