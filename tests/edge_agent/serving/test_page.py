"""The page, in Chromium, over the real HTTP door: what a person sees is what the broker read back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices.broker.journal import Journal
from devices.site.site import Site, load_site
from devices.site.tools import Command
from edge_agent.agent.session import AgentSession
from edge_agent.agent.simulation import Simulation
from edge_agent.serving import session as sessions
from edge_agent.serving.configuration import HttpDoor
from edge_agent.serving.http.access import make_token, read_token
from edge_agent.serving.hub import Hub, open_hub
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.markers import END_THINK, THINK
from tests.edge_agent.serving.conftest import ScriptedEngine
from tests.ports import free_port

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
if not (CHROMIUM.exists() and CHROMEDRIVER.exists()):
    pytest.skip("Chromium and its driver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("uvicorn", reason="the HTTP door's packages are not installed")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

from edge_agent.serving.http.http_door import HttpServer  # noqa: E402

pytestmark = pytest.mark.allow_hosts(["127.0.0.1", "::1"])
LIMIT_S = 20.0
SWITCHES = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update", "disable-sync"]
EVERY_CONTROL = """
schema: site/v1
name: every_control
title: every control
areas: {den: {title: the den}, yard: {}}
devices:
  den_lamp: {model: [dimmable_light, color_temp, color, power], area: den}
  player: {model: [media_player, media_volume, media_track, media_source], area: den}
  heating: {model: [thermostat, mode, preset, fan_mode], area: den}
  range: {model: climate_range, area: den}
  shutter: {model: [cover, tilt], area: den}
  socket: {model: [switch, child_lock], area: den, title: socket by the very long window seat}
  air: {model: [temperature, humidity, co2, voc, battery], area: den}
  alarm: {model: alarm_panel, area: yard}
  smoke: {model: smoke, area: yard, initial: {smoke: true}}
  bell: {model: button, area: yard}
  arm: {model: robot_arm, area: yard}
  front_door: {model: lock, area: yard}
  lawn: {model: valve}
"""
VISIBLE_CONTROLS = """
return [...document.querySelectorAll("button, a, input, select, summary, [tabindex]")].filter(
  (one) => one.checkVisibility({visibilityProperty: true}) && one.id !== "skip")
"""
IS_LOADING = """
return [...document.querySelectorAll(".pane p")].some((one) => one.checkVisibility() && one.textContent === "Loading…")
"""
TOO_SMALL = """
return [...document.querySelectorAll("button, a, input, select, summary")]
  .filter((one) => one.checkVisibility() && one.id !== "skip")
  .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
  .filter(([, box]) => box.height < 44 || box.width < 44).map(([text, box]) => `${text} ${box.width}x${box.height}`)
"""
OUTSIDE_LANDMARKS = """
return [...document.querySelectorAll("button, a, input, select, h1, h2, h3, h4")]
  .filter((one) => !one.closest("header, nav, main, section, dialog, #skip")).map((one) => one.outerHTML)
"""
TOO_WIDE = """
const wide = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
return [...wide, ...[...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest("svg") && one.getBoundingClientRect().width > 1
    && one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80))]
"""
TOO_FAINT = """
const numbers = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
const light = (color) => numbers(color).slice(0, 3).map((one) => one / 255)
  .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
  .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if ((numbers(color)[3] ?? 1) === 1) return color;
  }
  return "rgb(255, 255, 255)";
};
const found = [];
for (const one of document.querySelectorAll("body *")) {
  const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!hasText || !one.checkVisibility() || one.closest(":disabled")) continue;
  const [high, low] = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) found.push(`${one.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return found;
"""


@dataclass
class Page:
    """A browser that shows the page of a box."""

    driver: Any
    url: str

    def find(self, css: str) -> WebElement:
        return self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, css))[0]

    def tile(self, device: str, css: str) -> WebElement:
        return self.find(f"[data-device={device}] {css}")

    def text(self, css: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, check: Callable[[], Any]) -> Any:
        end_s = time.monotonic() + LIMIT_S
        while not (found := check()):
            assert time.monotonic() < end_s, self.run("return document.body.innerText")
            time.sleep(0.02)
        return found

    def say(self, text: str) -> None:
        self.find("#ask").send_keys(text + Keys.ENTER)

    def answer(self, text: str) -> None:
        """Wait until the last answer of the conversation has a text."""
        self.until(
            lambda: text in self.run("return [...document.querySelectorAll('.theirs')].at(-1)?.textContent ?? ''")
        )

    def note(self, device: str, text: str) -> None:
        self.until(lambda: text in self.text(f"[data-device={device}] .note"))

    def is_on(self, device: str) -> bool:
        return self.tile(device, ".switch").get_attribute("aria-checked") == "true"

    def is_asked(self) -> bool:
        return bool(self.run("return document.getElementById('confirm').open"))

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def press(self, *keys: str) -> None:
        for key in keys:
            self.focused.send_keys(key)

    def show(self, width: int, height: int, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self) -> None:
        self.driver.get(self.url)
        self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, ".tile .now:not(:empty)"))

    def console(self) -> list[str]:
        """Return what the browser complained of since it was asked last."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] in {"SEVERE", "WARNING"}]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in ["headless=new", "disable-background-networking", *SWITCHES]:
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMEDRIVER)))
    yield browser
    browser.quit()


@contextmanager
def served(hub: Hub, configuration: HttpDoor) -> Iterator[str]:
    """Give the address of a hub's HTTP door, which serves in a thread of its own."""
    opened, where = threading.Event(), list[str]()
    started: dict[str, Any] = {}

    async def serve() -> None:
        def note(url: str) -> None:
            where.append(url)
            opened.set()

        started.update(loop=asyncio.get_running_loop(), task=asyncio.current_task())
        await HttpServer(configuration).serve(hub, note)

    def work() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(serve())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert opened.wait(LIMIT_S)
        yield where[0]
    finally:
        started["loop"].call_soon_threadsafe(started["task"].cancel)
        thread.join()


@contextmanager
def opened_page(driver: Any, hub: Hub) -> Iterator[Page]:
    with served(hub, HttpDoor(port=0, mcp=False)) as url:
        page = Page(driver, url)
        page.show(1280, 800)
        driver.get_log("browser")
        page.open()
        yield page
        assert page.console() == []
        driver.get("about:blank")


@pytest.fixture
def page(driver: Any, hub: Hub) -> Iterator[Page]:
    with opened_page(driver, hub) as opened:
        yield opened


def test_a_request_moves_a_device_and_its_tile_changes(page: Page, hub: Hub) -> None:
    assert not page.is_on("kitchen_light")
    page.say("kitchen light on")
    page.answer("The kitchen light is on.")
    assert "Kitchen light: on" in page.text(".chip-what") and page.text(".chip-status") == "done"
    assert hub.state()["kitchen_light"]["on"] is True
    page.until(lambda: page.is_on("kitchen_light"))
    page.find(".chip .link").click()
    page.until(lambda: "The kitchen light is on." in page.text("#why-text"))
    page.press(Keys.ESCAPE)
    page.find("nav [data-view=journal]").click()
    page.until(lambda: "The kitchen light is on." in page.text("#journal"))
    page.find("nav [data-view=health]").click()
    page.until(lambda: "Everything works." in page.text("#health"))


def test_a_question_has_its_answers_as_buttons(page: Page, hub: Hub) -> None:
    page.say("kitchen light on at 7 pm")
    page.answer("Did you mean this: the kitchen light should be on?")
    buttons = page.run("return [...document.querySelectorAll('.answers button')].map((one) => one.textContent)")
    assert buttons == ["Yes", "No"] and hub.state()["kitchen_light"]["on"] is False
    page.find(".answers button").click()
    page.answer("The kitchen light is on.")
    assert page.run("return document.querySelectorAll('.answers').length") == 0
    assert hub.state()["kitchen_light"]["on"] is True


def test_a_switch_shows_what_was_read_back_also_of_what_others_do(page: Page, hub: Hub) -> None:
    page.tile("porch_light", ".switch").click()
    page.note("porch_light", "The porch light is on.")
    assert page.is_on("porch_light") and hub.state()["porch_light"]["on"] is True
    hub.open_session("another").command(Command("porch_light", "off", {}))
    page.until(lambda: not page.is_on("porch_light"))


def test_a_slider_sends_where_it_is_left(page: Page, hub: Hub) -> None:
    slider = page.tile("hall_thermostat", "input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.note("hall_thermostat", "21 degrees")  # two steps of half a degree
    assert hub.state()["hall_thermostat"]["target_c"] == 21
    assert slider.get_attribute("aria-valuetext") == "21°"
    assert [one.body["input"] for one in hub.events(50) if one.event == "PROPOSED"] == [{"target_c": 21}]


def test_what_is_refused_jumps_back_and_says_why(page: Page, hub: Hub) -> None:
    hub.runtime.broker.mode = "locked"
    page.tile("porch_light", ".switch").click()
    page.note("porch_light", "the controller is locked")
    assert not page.is_on("porch_light")
    slider = page.tile("hall_thermostat", "input[type=range]")
    slider.send_keys(Keys.END)
    page.note("hall_thermostat", "the controller is locked")
    page.until(lambda: page.run("return arguments[0].value", slider) == "20")
    page.tile("hall_thermostat", ".note .link").click()
    page.until(lambda: "the controller is locked" in page.text("#why-text .is-no"))
    page.press(Keys.ESCAPE)


def test_a_timed_action_takes_a_number_in_its_range(page: Page, hub: Hub) -> None:
    minutes = page.tile("garden_sprinkler", "input")
    minutes.clear()
    minutes.send_keys("90" + Keys.ENTER)
    page.until(lambda: page.text("[data-device=garden_sprinkler] .problem") == "Minutes: 1 to 20.")
    minutes.clear()
    minutes.send_keys("2" + Keys.ENTER)
    page.note("garden_sprinkler", "for 2 minutes")
    assert hub.state()["garden_sprinkler"]["open"] is True


@pytest.mark.parametrize("way", ["no", "escape", "yes"])
def test_what_needs_a_yes_asks_with_the_focus_on_no(page: Page, hub: Hub, way: str) -> None:
    page.tile("front_door", ".buttons button:last-child").click()
    page.until(page.is_asked)
    assert page.text("#confirm-effect") == "Front door: locked = unlocked"
    assert page.text("#confirm-left").endswith("seconds")
    assert page.focused.get_attribute("id") == "confirm-no" and hub.state()["front_door"]["locked"] is True
    page.press({"no": Keys.ENTER, "escape": Keys.ESCAPE, "yes": Keys.TAB}[way])
    if way == "yes":
        page.press(Keys.ENTER)
    page.note("front_door", "The front door is unlocked." if way == "yes" else "I left it as it was.")
    assert hub.state()["front_door"]["locked"] is (way != "yes") and not page.is_asked()


def test_the_time_to_say_yes_ends(page: Page, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONFIRMATION_S", 1.0)
    page.say("unlock the front door")
    page.until(page.is_asked)
    page.answer("The time to say yes is over.")
    assert not page.is_asked() and hub.state()["front_door"]["locked"] is True


def test_stop_works_while_the_engine_hangs(page: Page, hub: Hub, engine: ScriptedEngine) -> None:
    page.tile("garden_sprinkler", "[type=submit]").click()
    page.note("garden_sprinkler", "open")
    engine.hold.clear()
    try:
        page.say("kitchen light on")
        page.until(lambda: page.driver.find_elements(By.CSS_SELECTOR, ".working"))
        page.find("#stop").click()
        page.until(lambda: "Stopped." in page.text("#said"))
        assert hub.state()["garden_sprinkler"]["open"] is False
        page.answer("This was given up")
        page.until(lambda: hub.queue.figures.cancelled)  # the page says so before the box notices
    finally:
        engine.hold.set()
    assert hub.state()["kitchen_light"]["on"] is False  # nothing is begun after a stop


def test_stop_can_be_pressed_while_a_question_is_open(page: Page, hub: Hub) -> None:
    page.tile("garden_sprinkler", "[type=submit]").click()
    page.note("garden_sprinkler", "open")
    page.tile("front_door", ".buttons button:last-child").click()
    page.until(page.is_asked)
    page.find("#stop").click()
    page.until(lambda: "Stopped." in page.text("#said"))
    assert hub.state()["garden_sprinkler"]["open"] is False and not page.is_asked()
    page.note("front_door", "I left it as it was.")
    assert hub.state()["front_door"]["locked"] is True
    assert page.run("return document.getElementById('stop').parentElement.id") == "stop-place"


def test_a_request_can_be_given_up(page: Page, engine: ScriptedEngine, hub: Hub) -> None:
    engine.hold.clear()
    try:
        page.say("kitchen light on")
        page.find("#give-up:not([hidden])").click()
        page.answer("This was given up")
        page.until(lambda: hub.queue.figures.cancelled)  # the page says so before the box notices
    finally:
        engine.hold.set()
    page.say("kitchen light on")
    page.answer("The kitchen light is on.")


def test_text_from_outside_stays_text(page: Page, engine: ScriptedEngine, hub: Hub) -> None:
    evil = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    engine.replies["evil"] = f"{THINK} {evil}{END_THINK}{evil}"
    hub.tell(evil)
    page.until(lambda: evil in page.text("#said"))
    page.say(f"evil {evil}")
    page.answer(evil)
    assert evil in page.text(".mine p")
    assert page.run("return document.querySelectorAll('body img, body script').length") == 0
    assert "gone" not in page.driver.title


def test_a_forgotten_session_is_opened_anew(page: Page, hub: Hub) -> None:
    page.say("kitchen light on")
    page.answer("The kitchen light is on.")
    hub._sessions.clear()
    page.say("kitchen light off")
    page.answer("The kitchen light is off.")
    assert len(page.console()) == 1  # that the old session was refused


def test_the_token_is_asked_for(driver: Any, hub: Hub, tmp_path: Path) -> None:
    make_token(tmp_path / "token")
    with served(hub, HttpDoor(port=0, mcp=False, token_file=str(tmp_path / "token"))) as url:
        page = Page(driver, url)
        driver.get(url)
        page.until(lambda: page.run("return document.getElementById('token')?.open"))
        assert page.focused.get_attribute("id") == "token-value" and page.focused.accessible_name == "Token"
        page.press("wrong" + Keys.ENTER)
        page.until(lambda: "does not know" in page.text("#token-problem"))
        page.press(read_token(tmp_path / "token") + Keys.ENTER)
        page.until(lambda: driver.find_elements(By.CSS_SELECTOR, ".tile .now:not(:empty)"))
        page.tile("porch_light", ".switch").click()
        page.note("porch_light", "The porch light is on.")
        kept = json.dumps(page.run("return {...localStorage}")) + driver.current_url
        assert read_token(tmp_path / "token") not in kept
        page.open()  # the tab keeps it
        driver.get("about:blank")
    driver.get_log("browser")  # 401s are told there


def test_everything_is_within_reach_of_the_keyboard(page: Page, hub: Hub) -> None:
    page.press(Keys.TAB)
    assert page.focused.get_attribute("id") == "skip"
    page.press(Keys.TAB)
    assert page.focused.get_attribute("id") == "stop"
    page.press(Keys.SHIFT + Keys.TAB, Keys.ENTER)
    page.until(lambda: page.focused.get_attribute("id") == "ask")
    page.press("unlock the front door" + Keys.ENTER)
    page.until(page.is_asked)
    page.press(Keys.TAB)
    assert page.focused.get_attribute("id") == "confirm-yes"
    page.press(Keys.TAB)
    assert page.focused.get_attribute("id") == "stop"
    page.run("document.getElementById('confirm-yes').focus()")
    page.press(Keys.SPACE)
    page.answer("The front door is unlocked.")
    page.until(lambda: page.focused.get_attribute("id") == "ask")
    for _ in range(60):
        page.press(Keys.TAB)
        if page.focused.get_attribute("role") == "switch":
            break
    assert page.focused.accessible_name == "Kitchen light"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.SPACE)
    page.until(lambda: hub.state()["kitchen_light"]["on"] is True and page.is_on("kitchen_light"))


@pytest.fixture
def every_control(tmp_path: Path, engine: ScriptedEngine) -> Iterator[Hub]:
    file = tmp_path / "every_control.yaml"
    file.write_text(EVERY_CONTROL, encoding="utf-8")
    with hub_of(load_site(file), engine) as hub:
        yield hub


@contextmanager
def hub_of(site: Site, engine: ScriptedEngine) -> Iterator[Hub]:
    simulation = Simulation(site, load_template("chatml"))
    runner = AgentSession(site, simulation, engine, Journal(), False, "auto", False, "tiny")  # type: ignore[arg-type]
    with open_hub(runner, lambda problem: None, clock_s=0) as hub:
        yield hub


@pytest.mark.slow
def test_every_control_has_a_name_a_place_and_a_contrast(driver: Any, every_control: Hub) -> None:
    with opened_page(driver, every_control) as page:
        page.say("anything")
        page.answer("I heard you.")
        page.tile("heating", ".segments button:nth-child(2)").click()
        page.note("heating", "heat")
        page.tile("den_lamp", ".switch").click()
        page.note("den_lamp", "on")
        for width, scheme in ((1280, "light"), (360, "dark"), (360, "light")):
            page.show(width, 740, scheme)
            for view in ("talk", "devices", "journal", "health"):
                page.run("location.hash = '#/' + arguments[0]", view)
                page.until(lambda view=view: page.run("return document.body.dataset.view") == view)
                page.until(lambda: not page.run(IS_LOADING))
                assert page.run(TOO_WIDE) == []
                assert page.run(TOO_SMALL) == []
                assert page.run(TOO_FAINT) == []
                stop = page.find("#stop").rect
                assert stop["x"] + stop["width"] <= width and stop["y"] >= 0
        page.show(1280, 800)
        unnamed = [one.get_attribute("outerHTML") for one in page.run(VISIBLE_CONTROLS) if not one.accessible_name]
        assert unnamed == []
        assert page.run(OUTSIDE_LANDMARKS) == []


@pytest.mark.slow
def test_every_control_does_what_it_says(driver: Any, every_control: Hub) -> None:
    with opened_page(driver, every_control) as page:
        state = every_control.state
        for name, value in (("x", "10"), ("y", "20"), ("z", "30")):
            field = page.find(f"[data-device=arm] .field:nth-child({'xyz'.index(name) + 1}) input")
            field.clear()
            field.send_keys(value)
        page.tile("arm", "[type=submit]").click()
        page.until(lambda: state()["arm"]["x"] == 10 and state()["arm"]["z"] == 30)
        Select(page.tile("den_lamp", "select")).select_by_value("blue")
        assert page.text("[data-device=den_lamp] .slider:has(select) .reading") == "White"
        page.tile("den_lamp", ".pair button").click()
        page.until(lambda: state()["den_lamp"]["color"] == "blue")
        page.tile("shutter", ".buttons .is-safe").click()
        page.until(lambda: state()["shutter"]["state"] == "stopped")
        page.tile("socket", ".switch:not([aria-label])").click()
        page.until(lambda: state()["socket"]["child_lock"] is True)
        page.tile("bell", "button").click()
        page.until(page.is_asked)
        page.press(Keys.TAB, Keys.ENTER)
        page.note("bell", "The button was pressed.")


@pytest.mark.slow
def test_stop_has_a_connection_however_many_windows_are_open(page: Page, hub: Hub) -> None:
    first = page.driver.current_window_handle
    hub.open_session("another").command(Command("garden_sprinkler", "water", {"minutes": 5}))
    for _ in range(5):  # with the first as many as Chromium opens connections to a server, each with its news
        page.driver.switch_to.new_window("window")
        page.driver.get(page.url)
        page.find(".views a[aria-current]")
    page.find("#stop").click()
    page.until(lambda: "Stopped." in page.text("#said"))
    assert hub.state()["garden_sprinkler"]["open"] is False
    for window in page.driver.window_handles:
        if window != first:
            page.driver.switch_to.window(window)
            page.driver.close()
    page.driver.switch_to.window(first)


@pytest.mark.slow
def test_a_lost_connection_is_told_and_comes_back(driver: Any, hub: Hub) -> None:
    configuration = HttpDoor(port=free_port(), mcp=False)
    with served(hub, configuration) as url:
        page = Page(driver, url)
        page.show(1280, 800)
        page.open()
        assert not page.find("#lost").is_displayed()
    page.until(page.find("#lost").is_displayed)
    page.tile("porch_light", ".switch").click()
    page.note("porch_light", "It is not known whether this was done.")
    assert not page.is_on("porch_light")
    hub.open_session("another").command(Command("kitchen_light", "on", {}))
    with served(hub, configuration):
        page.find("#retry").click()
        page.until(lambda: not page.find("#lost").is_displayed())
        page.until(lambda: page.is_on("kitchen_light"))
        driver.get("about:blank")
    driver.get_log("browser")  # the refused connections are told there
