"""A Modbus server, TCP or RTU (pymodbus's own), whose coils and registers are a simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from devices.driver import Binding
from devices.drivers.modbus.driver import READS, ModbusSettings
from devices.drivers.modbus.register import TABLES, WRITE_FUNCTIONS, Register
from devices.drivers.serial_line import SerialLine
from devices.simulation.peer import RealTimeWorld, ServerThread, require_free

TABLE_OF = {function: table for table, function in READS.items()}
TABLE_OF |= {function: table for table, functions in WRITE_FUNCTIONS.items() for function in functions}
_Item = tuple[str, str, Register, Binding]  # a property's device, name and address, and the device's binding
NOISE = bytes(range(255, 239, -1))


class ModbusPeer:
    """The server behind one `modbus` driver of a site."""

    def __init__(self, settings: ModbusSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._world, self._settings = world, settings
        self._line: SerialLine | None = None
        self._registers: dict[int, dict[str, list[_Item]]] = {}
        for device, binding in bindings.items():
            for name, register in binding.at.items():
                tables = self._registers.setdefault(register.unit_or(settings.unit), {table: [] for table in TABLES})
                tables[register.table].append((device, name, register, binding))
        self._server: ServerThread | None = None

    @property
    def where(self) -> str:
        """Where it listens."""
        return f"modbus://{self._settings.serial or f'{self._settings.host}:{self._settings.port}'}"

    def start(self) -> None:
        """Listen; a serial line is made for it. Raises OSError if the port is taken, or the line there already."""
        if self._settings.serial:
            self._line = SerialLine(Path(self._settings.serial))
        else:
            require_free(self._settings.host, self._settings.port)
        self._server = ServerThread(self.where, self._serving)

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        if self._server:
            self._server.stop()
            self._server = None
        if self._line:
            self._line.close()
            self._line = None

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        server = self._make_server()
        await server.serve_forever(background=True)
        yield
        await server.shutdown()

    def _make_server(self) -> Any:
        settings = self._settings
        units = [self._sim_device(unit, tables) for unit, tables in self._registers.items()]
        if self._line:
            return ModbusSerialServer(
                units,
                port=self._line.far,
                baudrate=settings.baud,
                parity=settings.parity,
                trace_packet=self._trace_packet,
            )
        return ModbusTcpServer(units, address=(settings.host, settings.port), trace_packet=self._trace_packet)

    def _sim_device(self, unit: int, tables: dict[str, list[_Item]]) -> SimDevice:
        blocks = []
        for table, items in tables.items():
            size = max((register.address + register.count for _, _, register, _ in items), default=1)
            if table in {"coil", "discrete"}:
                bits = [False] * (-(-size // 16) * 16)  # pymodbus keeps them in whole registers
                blocks.append([SimData(0, values=bits, datatype=DataType.BITS)])
            else:
                blocks.append([SimData(0, count=size, values=0, datatype=DataType.REGISTERS)])

        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], written: Any
        ) -> ExcCodes | None:
            """Do what pymodbus wants of an action: called before it answers; changes `registers` in place."""
            del start
            if self._world.faults.delay_s:
                await asyncio.sleep(self._world.faults.delay_s)
            items = tables[TABLE_OF[function]]
            there = {
                one for _, _, register, _ in items for one in range(register.address, register.address + register.count)
            }
            # Of bits pymodbus tells only in how many registers of its own they are.
            asked = range(address, address + (1 if TABLE_OF[function] in {"coil", "discrete"} else count))
            if not there.issuperset(asked):
                return ExcCodes.ILLEGAL_ADDRESS
            if written is None:
                return self._show(items, address, count, registers)
            return self._take(items, address, list(written))

        return SimDevice(unit, simdata=(blocks[0], blocks[1], blocks[2], blocks[3]), action=answer)

    def _trace_packet(self, is_sending: bool, packet: bytes) -> bytes:
        if is_sending and self._world.faults.mute:
            return b""
        return NOISE if is_sending and self._world.faults.garbled else packet

    def _show(self, items: list[_Item], address: int, count: int, registers: list[int]) -> ExcCodes | None:
        for device, name, register, binding in items:
            span = count * 16 if register.is_bit else count
            if not (register.address < address + span and address < register.address + register.count):
                continue
            values = self._world.read(device)
            if values is None:
                return ExcCodes.GATEWAY_NO_RESPONSE
            own = slice(register.address, register.address + register.count)
            raw = register.to_raw(values[name], binding.device.properties[name], registers[own])
            if register.is_bit:
                word, bit = divmod(register.address, 16)
                registers[word] = registers[word] & ~(1 << bit) | raw[0] << bit
            else:
                registers[own] = raw
        return None

    def _take(self, items: list[_Item], address: int, written: list[int]) -> ExcCodes | None:
        for device, name, register, binding in items:
            at = register.address - address
            if at < 0 or at + register.count > len(written):
                continue
            raw = [int(word) for word in written[at : at + register.count]]
            value = register.to_value(raw, binding.device.properties[name])
            if not self._world.write(device, {name: value}):
                return ExcCodes.GATEWAY_NO_RESPONSE
        return None
