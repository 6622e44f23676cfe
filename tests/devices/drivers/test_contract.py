"""What every driver does, each over its real protocol against a peer whose devices are a simulated world."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import DeviceUnavailable, Driver
from devices.drivers.registry import open_driver
from devices.errors import UsageError
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command
from tests.devices.drivers.rigs import CLOCK_S, LACKS, SITES, Rig, make_rig, spread

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


def with_(*needs: str) -> pytest.MarkDecorator:
    """Run a test over the rigs that have all of something."""
    return pytest.mark.parametrize(
        "rig", [name for name in SITES if not LACKS.get(name, set()) & set(needs)], indirect=True
    )


@pytest.fixture(params=SITES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = make_rig(request.param, tmp_path)
    spread(made.world, made.site)
    made.peer.start()
    yield made
    made.peer.stop()


@pytest.fixture
def driver(rig: Rig) -> Iterator[Driver]:
    opened = rig.open()
    yield opened
    opened.close()


def kind(value: Value) -> type:
    """Whether a value is a truth, a number or a text."""
    return float if type(value) is int else type(value)


def values(driver: Driver, device: str) -> dict[str, Value]:
    return {name: reading.value for name, reading in driver.read(device).items()}


def test_every_property_of_every_device_is_read_as_it_is(rig: Rig, driver: Driver) -> None:
    for name, device in rig.site.devices.items():
        readings = driver.read(name)
        assert readings.keys() == device.properties.keys()
        for key, reading in readings.items():
            shown = rig.world.read(name)
            assert shown is not None and reading.quality == "good" and reading.time_s == CLOCK_S
            assert kind(reading.value) == kind(shown[key]), (name, key)
            assert reading.value == pytest.approx(shown[key], abs=0.06), (name, key)


@with_("writing")
def test_what_is_written_is_read_back(rig: Rig, driver: Driver) -> None:
    device, wanted = rig.written
    assert values(driver, device) != wanted
    driver.write(device, wanted)
    assert values(driver, device) == wanted
    assert rig.world.read(device) == wanted


@pytest.mark.parametrize("rig", [name for name, text in SITES.items() if "target_c" in text], indirect=True)
def test_a_second_device_is_written_and_nothing_else(rig: Rig, driver: Driver) -> None:
    before = {name: rig.world.read(name) for name in rig.site.devices}
    driver.write("heating", {"target_c": 21})
    assert values(driver, "heating")["target_c"] == 21
    after = {name: rig.world.read(name) for name in rig.site.devices}
    assert after == before | {"heating": (before["heating"] or {}) | {"target_c": 21}}


@with_("numbers")
def test_a_value_outside_the_schema_is_bad(rig: Rig, driver: Driver) -> None:
    device, key = rig.sensor
    rig.world.freeze(device)
    rig.world.faults.frozen[device][key] = 990.0
    assert driver.read(device)[key].quality == "bad"


@with_("silence of one")
def test_a_device_that_does_not_answer_is_unavailable_and_the_others_go_on(rig: Rig, driver: Driver) -> None:
    (device, wanted), other = rig.written, rig.sensor[0]
    if device not in rig.site.devices:
        device, other = other, next(name for name in rig.site.devices if name != other)
    with rig.world.now() as world:
        world.broken.add(device)
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    with pytest.raises(DeviceUnavailable, match=device):
        driver.write(device, wanted)
    assert driver.read(other)


def test_a_lost_link_is_unavailable_and_comes_back(rig: Rig, driver: Driver) -> None:
    device = rig.sensor[0]
    assert driver.read(device)
    rig.peer.stop()
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    deadline = time.monotonic() + 10
    while True:  # on a busy machine the old server may still hold its port
        try:
            rig.peer.start()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    while True:
        try:
            assert driver.read(device)
            break
        except DeviceUnavailable:
            assert time.monotonic() < deadline


def test_a_peer_that_is_not_there_is_unavailable(rig: Rig, driver: Driver) -> None:
    rig.peer.stop()
    with pytest.raises(DeviceUnavailable):
        driver.read(rig.sensor[0])


@with_("lateness")
def test_an_answer_that_comes_too_late_is_unavailable_and_never_taken_for_the_next(rig: Rig, driver: Driver) -> None:
    device, key = rig.sensor
    rig.world.faults.delay_s = 0.7
    started_s = time.monotonic()
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    assert time.monotonic() - started_s < 2
    rig.world.faults.delay_s = 0.0
    with rig.world.now() as world:
        world.state[device][key] = 11.0
    time.sleep(0.6)
    assert values(driver, device)[key] == pytest.approx(11.0, abs=0.06)


@with_("noise")
def test_garbage_is_never_good_and_does_no_lasting_harm(rig: Rig, driver: Driver) -> None:
    device = rig.sensor[0]
    rig.world.faults.garbled = True
    try:
        qualities = {reading.quality for reading in driver.read(device).values()}
    except DeviceUnavailable:
        qualities = set()
    assert "good" not in qualities
    rig.world.faults.garbled = False
    assert driver.read(device)[rig.sensor[1]].quality == "good"


def test_two_clients_and_two_threads_do_not_mix_answers(rig: Rig, driver: Driver) -> None:
    other = rig.open() if rig.has_many_clients else driver
    problems: list[str] = []
    names = list(rig.site.devices)
    for name in names:
        driver.read(name)  # the first time a pin is used, it goes off
    shown = {name: rig.world.read(name) or {} for name in names}
    numbers = [value for one in shown.values() for value in one.values() if kind(value) is float]
    assert len(numbers) == len(set(numbers))  # one in another's place is seen

    def work(mine: Driver, device: str) -> None:
        for _ in range(20):
            got = mine.read(device)
            found = {key: reading.value for key, reading in got.items()}
            if {reading.quality for reading in got.values()} != {"good"}:
                problems.append(f"{device}: {got}")
            elif found != pytest.approx(shown[device], abs=0.06):
                problems.append(f"{device}: {found}, not {shown[device]}")

    pairs = [(driver, names[0]), (driver, names[-1]), (other, names[1]), (other, names[-1])]
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert not problems


def test_close_lets_go_and_may_be_called_twice(rig: Rig) -> None:
    opened = rig.open()
    opened.read(rig.sensor[0])
    opened.close()
    opened.close()


@with_("writing")
def test_the_broker_works_the_site_through_it(rig: Rig, driver: Driver) -> None:
    broker = Broker(rig.site, driver, Journal(), clock=lambda: CLOCK_S)
    device, wanted = rig.written
    on = Command(device, "brightness", {"brightness": 40}) if "brightness" in wanted else Command(device, "on", {})
    outcome = broker.execute(on)
    assert outcome.status == "done" and rig.world.read(device) == wanted
    with rig.world.now() as world:
        world.stuck.add(device)
    assert broker.execute(Command(device, "off", {})).status == "failed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drivers": {"plc": {"type": "modbux", "host": "x"}}}, "no driver is of the type 'modbux'"),
        ({"drivers": {"plc": {"type": "modbus"}}}, "either host"),
        ({"drivers": {"plc": {"type": "modbus", "host": "x", "prt": 1}}}, "drivers.plc"),
    ],
)
def test_wrong_settings_are_found_without_a_device(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_driver(load_site("greenhouse").model_copy(update=change))


def test_a_site_without_drivers_cannot_be_opened() -> None:
    with pytest.raises(UsageError, match="has no driver in the site home"):
        open_driver(load_site("home"))
