"""Values in registers: every type, order of bytes and scale there and back; the bytes themselves, written by hand."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pymodbus.client import ModbusTcpClient

from devices.drivers.modbus.register import WORDS, Register, plan_blocks
from devices.site.schema import DataSchema

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
INTEGERS = [name for name in WORDS if "int" in name]
FLOATS = [name for name in WORDS if "float" in name]


def at(**keys: Any) -> Register:
    return Register.model_validate({"holding": 0, **keys})


def number(low: float = -1e30, high: float = 1e30, kind: str = "number") -> DataSchema:
    return DataSchema.model_validate({"type": kind, "minimum": low, "maximum": high})


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        ("uint16", 0x1234, {"ABCD": [0x1234], "CDAB": [0x1234], "BADC": [0x3412], "DCBA": [0x3412]}),
        ("int16", -2, {"ABCD": [0xFFFE], "CDAB": [0xFFFE], "BADC": [0xFEFF], "DCBA": [0xFEFF]}),
        (
            "uint32",
            0x12345678,
            {"ABCD": [0x1234, 0x5678], "CDAB": [0x5678, 0x1234], "BADC": [0x3412, 0x7856], "DCBA": [0x7856, 0x3412]},
        ),
        (
            "int32",
            -2,
            {"ABCD": [0xFFFF, 0xFFFE], "CDAB": [0xFFFE, 0xFFFF], "BADC": [0xFFFF, 0xFEFF], "DCBA": [0xFEFF, 0xFFFF]},
        ),
        (
            "float32",  # 123.456 is 0x42F6E979
            123.456,
            {"ABCD": [0x42F6, 0xE979], "CDAB": [0xE979, 0x42F6], "BADC": [0xF642, 0x79E9], "DCBA": [0x79E9, 0xF642]},
        ),
        (
            "uint64",
            0x0102030405060708,
            {
                "ABCD": [0x0102, 0x0304, 0x0506, 0x0708],
                "CDAB": [0x0708, 0x0506, 0x0304, 0x0102],
                "BADC": [0x0201, 0x0403, 0x0605, 0x0807],
                "DCBA": [0x0807, 0x0605, 0x0403, 0x0201],
            },
        ),
        (
            "int64",
            -0x0102030405060708,  # 0xFEFDFCFBFAF9F8F8
            {
                "ABCD": [0xFEFD, 0xFCFB, 0xFAF9, 0xF8F8],
                "CDAB": [0xF8F8, 0xFAF9, 0xFCFB, 0xFEFD],
                "BADC": [0xFDFE, 0xFBFC, 0xF9FA, 0xF8F8],
                "DCBA": [0xF8F8, 0xF9FA, 0xFBFC, 0xFDFE],
            },
        ),
        (
            "float64",  # 0xC05EDD2F1A9FBE77
            -123.456,
            {
                "ABCD": [0xC05E, 0xDD2F, 0x1A9F, 0xBE77],
                "CDAB": [0xBE77, 0x1A9F, 0xDD2F, 0xC05E],
                "BADC": [0x5EC0, 0x2FDD, 0x9F1A, 0x77BE],
                "DCBA": [0x77BE, 0x9F1A, 0x2FDD, 0x5EC0],
            },
        ),
    ],
)
def test_the_bytes_of_each_order(words: str, value: float, expected: dict[str, list[int]]) -> None:
    schema = number(-(2**63), 2**64, "integer" if words in INTEGERS else "number")
    for order, registers in expected.items():
        register = at(words=words, word_order=order)
        assert register.to_raw(value, schema) == registers, order
        assert register.to_value(registers, schema) == value, order
        assert register.count == len(registers)
    for old, new in (("big", "ABCD"), ("little", "CDAB")):
        assert at(words=words, word_order=old).to_raw(value, schema) == expected[new]


def test_big_and_little_are_pymodbus_own() -> None:
    for words in WORDS:
        kind, value = ModbusTcpClient.DATATYPE[words.upper()], 77 if words in INTEGERS else 0.3
        for order in ("big", "little"):
            registers = ModbusTcpClient.convert_to_registers(value, kind, order)
            assert at(words=words, word_order=order).to_raw(value, number()) == registers
            assert ModbusTcpClient.convert_from_registers(registers, kind, order) == pytest.approx(value)
    text = at(words="string", registers=4)
    registers = ModbusTcpClient.convert_to_registers("heating", ModbusTcpClient.DATATYPE.STRING)
    schema = DataSchema(type="string", enum=("eco", "heating"))
    assert text.to_raw("heating", schema) == registers and text.to_value(registers, schema) == "heating"


@given(st.data(), st.sampled_from(INTEGERS), st.sampled_from(ORDERS), st.sampled_from([1, 0.1, 0.001, 25, -0.5, 1 / 3]))
def test_a_whole_number_comes_back_within_the_scale(data: st.DataObject, words: str, order: str, scale: float) -> None:
    offset = data.draw(st.sampled_from([0.0, -40.0, 273.15]))
    bits = 8 * struct.calcsize(WORDS[words])
    lowest, highest = (0, 2**bits - 1) if words.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    ends = sorted((lowest * scale + offset, highest * scale + offset))
    value = data.draw(st.floats(*ends).map(lambda one: min(max(round(one, 6), ends[0] * 0.999), ends[1] * 0.999)))
    register = at(words=words, word_order=order, scale=scale, offset=offset)
    raw = register.to_raw(value, number(*ends))
    assert len(raw) == register.count and all(0 <= word <= 0xFFFF for word in raw)
    found = register.to_value(raw, number(*ends))
    assert abs(found - value) <= abs(scale) / 2 + abs(value) * 1e-15
    assert register.to_raw(found, number(*ends)) == raw or bits == 64  # a float has 53 bits


@given(st.data(), st.sampled_from(INTEGERS), st.sampled_from(ORDERS))
def test_every_whole_number_comes_back_to_the_last_digit(data: st.DataObject, words: str, order: str) -> None:
    bits = 8 * struct.calcsize(WORDS[words])
    lowest, highest = (0, 2**bits - 1) if words.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    value, register = data.draw(st.integers(lowest, highest)), at(words=words, word_order=order)
    schema = number(lowest, highest, "integer")
    assert register.to_value(register.to_raw(value, schema), schema) == value


@given(st.floats(-1e9, 1e9), st.sampled_from(FLOATS), st.sampled_from(ORDERS), st.sampled_from([1, 0.1, 1000, -2, 1.8]))
def test_a_float_comes_back(value: float, words: str, order: str, scale: float) -> None:
    register = at(words=words, word_order=order, scale=scale, offset=32)
    found = register.to_value(register.to_raw(value, number()), number())
    assert found == pytest.approx(
        value, rel=1e-12 if words == "float64" else 1e-6, abs=1e-4 if words[-2] == "3" else 1e-9
    )


@given(st.decimals(-9999, 9999, places=2).map(float), st.sampled_from(ORDERS))
def test_a_float32_is_as_short_as_it_was_written(value: float, order: str) -> None:
    register = at(words="float32", word_order=order)
    assert register.to_value(register.to_raw(value, number()), number()) == value
    highest, lowest = [0x7F7F, 0xFFFF], [0x0000, 0x0001]
    for registers, shortest in ((highest, 3.4028235e38), (lowest, 1.4e-45)):
        assert at(words="float32").to_value(registers, number()) == pytest.approx(shortest, rel=1e-2, abs=0)
        assert at(words="float32").to_raw(at(words="float32").to_value(registers, number()), number()) == registers


def test_scaled_numbers_have_no_tail() -> None:
    assert at(scale=0.1).to_value([3], number()) == 0.3  # 3 * 0.1 is 0.30000000000000004
    assert at(words="int16", scale=0.01, offset=-273.15).to_value([29615], number()) == 23.0


@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(ORDERS), st.data())
def test_bits_are_read_and_written_and_no_others(before: int, order: str, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, 31))
    width = data.draw(st.integers(1, 32 - low))
    value = data.draw(st.integers(0, 2**width - 1))
    whole = at(words="uint32", word_order=order, no_value=[])
    field = at(words="uint32", word_order=order, bit=low, bits=width)
    schema = number(0, 2**32, "integer")
    registers = whole.to_raw(before, schema)
    assert field.to_value(registers, schema) == (before >> low) % 2**width
    after = whole.to_value(field.to_raw(value, schema, registers), schema)
    assert after == before - ((before >> low) % 2**width << low) + (value << low)
    with pytest.raises(ValueError, match="does not fit"):
        field.to_raw(2**width, schema)


def test_bits_as_truths_and_words() -> None:
    fault = at(bit=3)
    assert fault.to_value([0b1000], DataSchema(type="boolean")) is True
    assert fault.to_value([0b10111], DataSchema(type="boolean")) is False
    assert fault.to_raw(False, DataSchema(type="boolean"), [0xFFFF]) == [0xFFF7]
    mode = at(bit=4, bits=2)
    words = DataSchema(type="string", enum=("off", "eco", "heat"))
    assert mode.to_value([0b10_0000], words) == "heat" and mode.to_raw("eco", words, [0xFF]) == [0xDF]
    with pytest.raises(ValueError, match="stands for none of"):
        mode.to_value([0b11_0000], words)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("int16", "8000"),
        ("uint16", "FFFF"),
        ("int32", "80000000"),
        ("uint32", "FFFFFFFF"),
        ("int64", "8000000000000000"),
        ("uint64", "FFFFFFFFFFFFFFFF"),
        ("float32", "7FC00000"),
        ("float32", "FF800001"),
        ("float64", "7FF8000000000000"),
    ],
)
def test_patterns_of_no_value(words: str, pattern: str, order: str) -> None:
    data = bytes.fromhex(pattern)
    pairs = [data[place : place + 2] for place in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        pairs.reverse()
    registers = [int.from_bytes(pair, "little" if order in {"BADC", "DCBA"} else "big") for pair in pairs]
    assert at(words=words, word_order=order).has_no_value(registers, number())
    is_float = words in FLOATS
    assert at(words=words, word_order=order, no_value=[]).has_no_value(registers, number()) is is_float
    assert not at(words=words, word_order=order).has_no_value([0] * len(pairs), number())
    assert not at(words=words, word_order=order).has_no_value([1] * len(pairs), number())


def test_no_value_of_its_own_and_where_it_means_something() -> None:
    assert at(words="int16", no_value=[0x7FFF, -9999]).has_no_value([0x7FFF], number())
    assert at(words="int16", no_value=[0x7FFF, -9999]).has_no_value([0x10000 - 9999], number())
    assert not at(words="int16", no_value=[0x7FFF]).has_no_value([0x8000], number())
    assert at(words="string", registers=2).has_no_value([0, 0], DataSchema(type="string", enum=("a",)))
    assert not at(bit=3).has_no_value([0xFFFF], number())  # all bits on
    assert not at().has_no_value([0xFFFF], DataSchema(type="boolean"))  # -1 is true
    assert math.isinf(at(words="float32").to_value([0x7F80, 0], number()))  # said as bad: outside any range


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"words": "string"}, "needs registers"),
        ({"registers": 3}, "numbers have their own"),
        ({"words": "string", "registers": 2, "word_order": "CDAB"}, "ABCD, or BADC"),
        ({"holding": 65533, "words": "float64"}, "end above 65535"),
        ({"bits": 3}, "bits needs bit"),
        ({"bit": 3, "words": "int16"}, "uint16, uint32 or uint64"),
        ({"bit": 12, "bits": 5}, "the bits 0 to 15"),
        ({"write_function": 5}, "does not write a holding"),
        ({"write_function": 6, "words": "int32"}, "writes one register"),
        ({"write_function": 22}, "there is no bit"),
        ({"scale": 0}, "scale must not be 0"),
        ({"input": 3}, "exactly one of"),
    ],
)
def test_addresses_that_make_no_sense(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        at(**keys)


def test_values_that_do_not_fit() -> None:
    for register, value in (
        (at(), -1),
        (at(), 65536),
        (at(words="float32"), 1e39),
        (at(words="int16", scale=0.1), 3277),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            register.to_raw(value, number())
    with pytest.raises(ValueError, match="longer than 4 letters"):
        at(words="string", registers=2).to_raw("heating", DataSchema(type="string", enum=("heating",)))


def test_blocks_join_what_touches_and_cross_no_gap() -> None:
    def blocks(**keys: dict[str, Any]) -> list[tuple[int, str, int, int, str]]:
        found = plan_blocks({name: Register.model_validate(one) for name, one in keys.items()}, 1)
        return [(one.unit, one.table, one.address, one.count, "".join(one.names)) for one in found]

    assert blocks(a={"holding": 10, "words": "float32"}, b={"holding": 12}, c={"holding": 14}) == [
        (1, "holding", 10, 3, "ab"),
        (1, "holding", 14, 1, "c"),
    ]
    assert blocks(b={"holding": 3, "bit": 1}, a={"holding": 3}, c={"input": 4}, d={"coil": 4}) == [
        (1, "coil", 4, 1, "d"),
        (1, "holding", 3, 1, "ba"),
        (1, "input", 4, 1, "c"),
    ]
    assert blocks(a={"input": 3, "unit": 2}, b={"input": 4}, c={"input": 4, "unit": 2}) == [
        (1, "input", 4, 1, "b"),
        (2, "input", 3, 2, "ac"),
    ]
    wide = {f"p{place}": {"holding": 4 * place, "words": "int64"} for place in range(40)}
    assert [(one[2], one[3]) for one in blocks(**wide)] == [(0, 124), (124, 36)]  # 125 at most, and none cut in two
