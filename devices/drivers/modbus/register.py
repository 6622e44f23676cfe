"""Where a property is on a Modbus server, and how its value is written there: type, order of the bytes, bits, scale.

Modbus knows bits and 16-bit registers only. How a longer number lies in several registers each maker decides; the
orders have the names that plants use for the bytes of 0xAABBCCDD: ABCD (as numbers are written), CDAB (registers
swapped), BADC (bytes swapped), DCBA (both).
Sources: Modbus application protocol 1.1b3, 4 and 6; SunSpec information model, "not implemented" values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

WORDS = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q"}
WORDS |= {"float32": "f", "float64": "d"}
TABLES = ("coil", "discrete", "holding", "input")
WRITE_FUNCTIONS = {"coil": (5, 15), "holding": (6, 16, 22)}
MOST_BITS, MOST_REGISTERS = 2000, 125  # that one request may read
Order = Literal["big", "little", "ABCD", "CDAB", "BADC", "DCBA"]


class Register(Strict):
    """Where one property is: one of coil, discrete, holding, input. value = raw * scale + offset.

    `words` is the type of the number; `string` is text in as many `registers`. `word_order` big is ABCD, little is
    CDAB. With `bit` the property is only `bits` bits of the number, from that one on; 0 is the lowest.
    `no_value` are raw numbers that say "nothing measured", by default SunSpec's of the type; [] for none.
    `write_function` is the only function that writes it, where a server takes others wrongly.
    """

    coil: int | None = Field(default=None, ge=0, le=65535)
    discrete: int | None = Field(default=None, ge=0, le=65535)
    holding: int | None = Field(default=None, ge=0, le=65535)
    input: int | None = Field(default=None, ge=0, le=65535)
    unit: int | None = Field(default=None, ge=0, le=255)
    words: Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"] = "uint16"
    word_order: Order = "big"
    registers: int | None = Field(default=None, ge=1, le=MOST_REGISTERS)
    bit: int | None = Field(default=None, ge=0, le=63)
    bits: int = Field(default=1, ge=1, le=64)
    scale: float = Field(default=1.0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    no_value: tuple[int, ...] | None = Field(default=None, strict=False)
    write_function: Literal[5, 6, 15, 16, 22] | None = None

    @model_validator(mode="after")
    def _require_relations(self) -> Register:
        if sum(getattr(self, table) is not None for table in TABLES) != 1:
            raise ValueError(f"needs exactly one of {', '.join(TABLES)}")
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if (self.words == "string") != (self.registers is not None):
            raise ValueError("words: string needs registers, how many there are; numbers have their own")
        if self.words == "string" and self.word_order in {"little", "CDAB", "DCBA"}:
            raise ValueError("a string is in the order of its registers: word_order is ABCD, or BADC")
        if self.address + self.count > 65536:
            raise ValueError(f"{self.count} registers from {self.address} on end above 65535")
        return self

    @model_validator(mode="after")
    def _require_bits_that_are_there(self) -> Register:
        if self.bit is None:
            if self.bits != 1:
                raise ValueError("bits needs bit, the lowest of them")
        elif self.is_bit or not self.words.startswith("u"):
            raise ValueError("bit needs a holding or input register with words uint16, uint32 or uint64")
        elif self.bit + self.bits > 16 * self.count:
            raise ValueError(f"{self.words} has the bits 0 to {16 * self.count - 1}")
        if (function := self.write_function) is not None:
            if function not in WRITE_FUNCTIONS.get(self.table, ()):
                raise ValueError(f"write_function {function} does not write a {self.table}")
            if function in {6, 22} and self.count > 1:
                raise ValueError(f"write_function {function} writes one register, and {self.words} has {self.count}")
            if function == 22 and self.bit is None:
                raise ValueError("write_function 22 writes bits of a register, and there is no bit")
        return self

    @property
    def table(self) -> str:
        """One of TABLES."""
        return next(table for table in TABLES if getattr(self, table) is not None)

    @property
    def address(self) -> int:
        """From 0, as on the wire."""
        return int(getattr(self, self.table))

    def unit_or(self, usual: int) -> int:
        """Return the unit that it is on, the usual one if it names none."""
        return usual if self.unit is None else self.unit

    @property
    def is_bit(self) -> bool:
        """Whether it is a coil or a discrete input."""
        return self.table in {"coil", "discrete"}

    @property
    def count(self) -> int:
        """How many bits or registers it takes."""
        if self.is_bit:
            return 1
        return self.registers or struct.calcsize(f">{WORDS[self.words]}") // 2

    @property
    def write_functions(self) -> tuple[int, ...]:
        """The functions that may write it, the first unless the server has no such function."""
        if self.write_function is not None:
            return (self.write_function,)
        one, many = (5, 15) if self.is_bit else (6, 16)
        return (one, many) if self.count == 1 else (many,)

    @property
    def mask(self) -> int:
        """Which bits of the number are the property's."""
        return ((1 << self.bits) - 1) << self.bit if self.bit is not None else (1 << 16 * self.count) - 1

    def has_no_value(self, raw: Sequence[int], schema: DataSchema) -> bool:
        """Return whether raw registers say that there is nothing measured: NaN, text of zeros, one of `no_value`."""
        if self.is_bit:
            return False
        data = self._bytes(raw)
        number = int.from_bytes(data, "big")
        if self.no_value is not None and number in {one % (1 << 8 * len(data)) for one in self.no_value}:
            return True
        if self.words == "string":
            return number == 0
        if self.words.startswith("float"):
            return math.isnan(self._number(data))
        if self.no_value is not None or self.bit is not None or schema.type == "boolean":
            return False
        highest = 1 << 8 * len(data) - 1  # the highest bit alone is the lowest of the signed numbers
        return number == (highest if self.words.startswith("i") else 2 * highest - 1)

    def to_value(self, raw: Sequence[int], schema: DataSchema) -> Value:
        """Return the property's value for raw bits (0 or 1) or registers (0..65535).

        Raises:
            ValueError: the number stands for no value of the property.
        """
        if self.is_bit:
            number: float = raw[0]
        elif self.words == "string":
            return self._bytes(raw).split(b"\0")[0].decode("ascii").strip()
        else:
            data = self._bytes(raw)
            number = self._number(data)
            if self.bit is not None:
                number = (int(number) & self.mask) >> self.bit
        if schema.type == "boolean":
            return bool(number)
        if not math.isfinite(number):
            return number
        exact = Fraction(number) * Fraction(str(self.scale)) + Fraction(str(self.offset))  # 3 * 0.1 is 0.3
        if schema.type == "string":
            words = schema.enum or ()
            if not 0 <= exact < len(words):
                raise ValueError(f"{float(exact):g} stands for none of {', '.join(words)}")
            return words[int(exact)]
        return round(exact) if schema.type == "integer" else float(exact)

    def to_raw(self, value: Value, schema: DataSchema, before: Sequence[int] = ()) -> list[int]:
        """Return the bits or registers for a value of the property.

        Args:
            value: of the property.
            schema: the property's.
            before: what the registers hold: kept where the property is only some of their bits.

        Raises:
            ValueError: it does not fit the register.
        """
        if self.words == "string":
            text = str(value).encode("ascii")
            if len(text) > 2 * self.count:
                raise ValueError(f"{value} is longer than {2 * self.count} letters")
            return self._registers(text.ljust(2 * self.count, b"\0"))
        number = (schema.enum or ()).index(value) if isinstance(value, str) else value
        exact = (Fraction(str(number + 0)) - Fraction(str(self.offset))) / Fraction(str(self.scale))
        if self.is_bit:
            return [int(exact != 0)]
        if self.bit is not None:
            bits = round(exact) << self.bit
            if not 0 <= bits <= self.mask:
                raise ValueError(f"{value} does not fit {self.bits} bits")
            kept = int.from_bytes(self._bytes(before or [0] * self.count), "big") & ~self.mask
            return self._registers((kept | bits).to_bytes(2 * self.count, "big"))
        try:
            packed = struct.pack(f">{WORDS[self.words]}", float(exact) if "float" in self.words else round(exact))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{value} does not fit {self.words}") from error
        return self._registers(packed)

    def _number(self, data: bytes) -> float:
        """Return the number in bytes; of a float32 the shortest that has these bytes, so that 40.1 is 40.1."""
        (number,) = struct.unpack(f">{WORDS[self.words]}", data)
        if self.words == "float32" and math.isfinite(number):
            shortest = (float(f"{number:.{digits}g}") for digits in (6, 7, 8))
            return next((short for short in shortest if _fits(short, data)), float(number))
        return number

    def _bytes(self, raw: Sequence[int]) -> bytes:
        return self._reordered(struct.pack(f">{len(raw)}H", *raw))

    def _registers(self, data: bytes) -> list[int]:
        return list(struct.unpack(f">{self.count}H", self._reordered(data)))

    def _reordered(self, data: bytes) -> bytes:
        """Return bytes of the order ABCD in the register's own, and the other way round."""
        pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
        if self.word_order in {"little", "CDAB", "DCBA"}:
            pairs.reverse()
        return b"".join(pair[::-1] if self.word_order in {"BADC", "DCBA"} else pair for pair in pairs)


def _fits(number: float, data: bytes) -> bool:
    try:
        return struct.pack(">f", number) == data
    except OverflowError:  # rounded up, past the highest there is
        return False


@dataclass(frozen=True)
class Block:
    """One request that reads the properties `names`: `count` bits or registers of a unit's table, from `address` on."""

    unit: int
    table: str
    address: int
    count: int
    names: tuple[str, ...]


def plan_blocks(at: Mapping[str, Register], unit: int) -> list[Block]:
    """Return few requests that read all properties; those of one answer were true at the same moment.

    None crosses a gap: many servers refuse the whole request for one register in it that they do not have. None cuts a
    value in two.

    Args:
        at: where each property is.
        unit: of the properties that name none.
    """
    blocks: list[Block] = []
    single = [Block(one.unit_or(unit), one.table, one.address, one.count, (name,)) for name, one in at.items()]
    for block in sorted(single, key=lambda one: (one.unit, one.table, one.address)):
        last, most = blocks[-1] if blocks else None, MOST_BITS if at[block.names[0]].is_bit else MOST_REGISTERS
        if last and (last.unit, last.table) == (block.unit, block.table) and block.address <= last.address + last.count:
            count = max(last.count, block.address + block.count - last.address)
            if count <= most:
                blocks[-1] = replace(last, count=count, names=last.names + block.names)
                continue
        blocks.append(block)
    return blocks
