"""What the contract suite cannot say of GPIO and I2C: levels on the pins, and the data sheets' own examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero.pins.mock import MockPWMPin

from devices.driver import DeviceUnavailable, Driver, Reading
from devices.drivers.gpio.driver import pin_factory
from devices.drivers.i2c.driver import sht3x_crc
from devices.drivers.registry import open_driver
from devices.errors import UsageError
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.site import Site, load_site

HEAD = "schema: site/v1\nname: rig\ntitle: a rig\n"


def site_of(text: str, folder: Path) -> Site:
    file = folder / "site.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return load_site(file)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[tuple[Driver, str]]:
    chip = str(tmp_path / "pins")
    text = f"""
drivers: {{pins: {{type: gpio, factory: {chip}}}}}
devices:
  valve: {{model: light, driver: pins, at: {{"on": {{output: 5, active: low}}}}}}
  lamp: {{model: dimmable_light, driver: pins, at: {{"on": {{output: 6}}, brightness: {{pwm: 12}}}}}}
"""
    site = site_of(text, tmp_path)
    peer = make_peer(site, "pins", RealTimeWorld(site))
    peer.start()
    driver = open_driver(site)
    yield driver, chip
    driver.close()
    peer.stop()


def level(chip: str, number: int) -> float:
    pin = pin_factory(chip, None).pin(f"GPIO{number}")
    assert isinstance(pin, MockPWMPin) and pin.function == "output"
    return float(pin.state)


def test_active_low_is_low_when_on_and_high_from_the_first_touch_on(pins: tuple[Driver, str]) -> None:
    driver, chip = pins
    assert driver.read("valve")["on"].value is False and level(chip, 5) == 1
    driver.write("valve", {"on": True})
    assert driver.read("valve")["on"].value is True and level(chip, 5) == 0


@pytest.mark.parametrize("percent", [0, 1, 29, 57, 58, 100])
def test_every_whole_percent_survives_a_factory_that_cuts_down(pins: tuple[Driver, str], percent: int) -> None:
    driver, chip = pins
    driver.write("lamp", {"brightness": percent})
    assert int(level(chip, 12) * 100) == percent  # what lgpio keeps
    assert driver.read("lamp")["brightness"].value == percent


def test_a_pin_has_one_holder(pins: tuple[Driver, str], tmp_path: Path) -> None:
    driver, chip = pins
    driver.read("valve")
    text = f"""
drivers: {{pins: {{type: gpio, factory: {chip}}}}}
devices: {{valve: {{model: light, driver: pins, at: {{"on": {{output: 5}}}}}}}}
"""
    with pytest.raises(DeviceUnavailable, match=r"valve: GPIO 5 of .*/pins: .*in use"):
        open_driver(site_of(text, tmp_path)).read("valve")


def test_a_factory_or_a_bus_that_is_not_here_is_unavailable(tmp_path: Path) -> None:
    text = """
drivers: {pins: {type: gpio, factory: gpioz}, bus: {type: i2c, bus: 250}}
devices:
  valve: {model: light, driver: pins, at: {"on": {output: 5}}}
  tank: {model: level_sensor, driver: bus, at: {level_pct: {chip: ads1115, address: 0x48}}}
"""
    driver = open_driver(site_of(text, tmp_path))
    with pytest.raises(DeviceUnavailable, match="gpiozero has no pin factory gpioz"):
        driver.read("valve")
    with pytest.raises(DeviceUnavailable, match="chip 0x48 on I2C bus 250 gave no answer"):
        driver.read("tank")


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("{output: 5, pwm: 6}", "exactly one of output, pwm, input"),
        ("{input: 5}", "cannot be written"),
        ("{input: 5, pull: up, active: low}", "leave out"),
        ("{pwm: 5, feedback: 6}", "feedback goes with output"),
    ],
)
def test_a_wrong_pin_is_found_without_a_chip(at: str, message: str, tmp_path: Path) -> None:
    text = f'drivers: {{it: {{type: gpio}}}}\ndevices: {{lamp: {{model: light, driver: it, at: {{"on": {at}}}}}}}'
    site = site_of(text, tmp_path)
    with pytest.raises(UsageError, match=message):
        open_driver(site)


class Chip:
    """A bus with one chip that gives the bytes of a data sheet's example, whatever it is asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.asked = answer, b""

    def i2c_rdwr(self, *messages: object) -> None:
        for message in messages:
            if message.flags & 1:  # type: ignore[attr-defined]
                for index, byte in enumerate(self.answer[: len(message)]):  # type: ignore[arg-type]
                    message.buf[index] = byte  # type: ignore[attr-defined]
            else:
                self.asked += bytes(message)  # type: ignore[call-overload]

    def close(self) -> None:
        pass


def probe_at(at: str, folder: Path) -> Reading:
    """Return what a chip at an address shows, between -40 and 60."""
    text = f"""
drivers: {{bus: {{type: i2c, bus: 1}}}}
models: {{probe: {{kind: sensor, properties: {{it: {{type: number, minimum: -40, maximum: 60}}}}}}}}
devices: {{probe: {{model: probe, driver: bus, at: {{it: {{{at}}}}}}}}}
"""
    return open_driver(site_of(text, folder)).read("probe")["it"]


@pytest.mark.parametrize(
    ("at", "answer", "asked", "value"),
    [
        # SHT3x: 0x6666 of 65535 is 25 degrees; CRC of 0xBEEF is 0x92 (data sheet, 4.12)
        ("chip: sht3x, address: 0x44", b"\x66\x66\x93\xbe\xef\x92", b"\x24\x00", 25.0),
        ("chip: sht3x, address: 0x44, quantity: humidity, scale: 0.1", b"\x66\x66\x93\xbe\xef\x92", b"\x24\x00", 7.459),
        # BH1750: 0x8390 counts are 28067 lux (data sheet, measurement sequence)
        ("chip: bh1750, address: 0x23, scale: 0.001", b"\x83\x90", b"\x20", 28.067),
        # ADS1115: 0x4000 at +-4.096 V is 2.048 V; config: start, channel 1 to ground, +-4.096 V, single shot
        ("chip: ads1115, address: 0x48, channel: 1, scale: 10", b"\x40\x00", b"\x01\xd3\x83\x00", 20.48),
        # LM75-like register: 0x19 0x00 is 25 degrees
        ("chip: registers, address: 0x49, register: 0, scale: 0.00390625", b"\x19\x00", b"\x00", 25.0),
    ],
)
def test_chips_answer_as_their_data_sheets_say(
    at: str, answer: bytes, asked: bytes, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip(answer)
    monkeypatch.setattr("smbus2.SMBus", lambda bus: chip)
    reading = probe_at(at, tmp_path)
    assert reading.quality == "good" and reading.value == pytest.approx(value, abs=0.005)
    assert chip.asked == asked


def test_the_checksum_is_the_data_sheet_s() -> None:
    assert sht3x_crc(b"\xbe\xef") == 0x92


@pytest.mark.parametrize("flipped", range(24))
def test_a_damaged_answer_is_bad(flipped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = bytearray(b"\x66\x66\x93\xbe\xef\x92")
    answer[flipped // 8] ^= 1 << flipped % 8
    monkeypatch.setattr("smbus2.SMBus", lambda bus: Chip(bytes(answer)))
    assert probe_at("chip: sht3x, address: 0x44", tmp_path).quality == "bad"
