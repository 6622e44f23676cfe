"""Filters of the failures: who belongs to what, and what a real browser shows of it, without any script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.evaluation.own.own_cases import Graded
from edge_agent.evaluation.own.own_report import to_plain
from edge_agent.evaluation.report_filters import Filter, classes_of, filters_of
from edge_agent.evaluation.report_page import render_own_cases
from tests.edge_agent.evaluation.test_report import Page

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SHOWN = """
return [...document.querySelectorAll(".failures > .case")].filter((one) => one.checkVisibility())
  .map((one) => one.querySelector(".ask").textContent)
"""
COUNTED = """
const count = document.querySelector(".left");
const shown = [...document.querySelectorAll(".failures > .case")].filter((one) => one.checkVisibility());
return [count.checkVisibility(), count.getBoundingClientRect().top < shown[0].getBoundingClientRect().top];
"""
TOO_WIDE = "return document.documentElement.scrollWidth > innerWidth"


def failed(ask: str, kind: str, *ways: str) -> Graded:
    return Graded(kind, ask, "Done.", (), ("wrong",), ways=ways)


FIRST = [failed("one", "act", "did nothing"), failed("two", "value", "did nothing", "wrong answer")]
LAST = [failed("three", "act", "wrong answer"), Graded("value", "good", "Done.", (), ())]
PAGE = render_own_cases(to_plain([("F16", FIRST), ("<b>Q4", LAST)], "home", "edgewright eval", "cases.yaml"))


def test_a_filter_has_what_occurs_and_none_is_made_where_nothing_is_to_choose() -> None:
    rows = [{"kind": ["b"], "way": ["x", "y"], "model": ["m"]}, {"kind": ["a"], "way": [], "model": ["m"]}]
    titles = {"kind": "Kind", "way": "Way", "model": "Model"}
    found = filters_of(rows, titles, {"kind": "a", "way": "z", "model": "m"})
    assert found == [Filter("kind", "Kind", ("b", "a"), 1), Filter("way", "Way", ("x", "y"))]
    assert [classes_of(row, found) for row in rows] == ["kind0 way0 way1", "kind1"]
    assert filters_of([], titles, {}) == []


def test_the_page_has_all_failures_and_buttons_with_names_of_their_own() -> None:
    page = Page(PAGE)
    assert PAGE.count('<details class="case ') == 3 and page.tags.count("fieldset") == 3
    assert "script" not in page.tags and "&lt;b&gt;Q4" in PAGE and "<b>Q4" not in PAGE
    ids = [part.split('"')[0] for part in PAGE.split(' id="')[1:]]
    assert len(ids) == len(set(ids)) == 3 * 3
    assert "F16 failed 2, <b>Q4 failed 1." in page.text and "of 3 shown" in page.text


def test_one_model_with_one_failure_has_no_filters() -> None:
    page = render_own_cases(to_plain([("F16", FIRST[:1])], "home", "edgewright eval", "cases.yaml"))
    assert "fieldset" not in Page(page).tags and "1 shown" not in page and "main:has(" not in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM.exists() and CHROMEDRIVER.exists()):
        pytest.skip("Chromium and its driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    path = tmp_path / "page.html"
    path.write_text(PAGE, encoding="utf-8")
    browser.set_window_size(390, 844)
    browser.get(path.as_uri())
    return browser


@pytest.mark.allow_hosts(["127.0.0.1", "::1"])
def test_a_browser_shows_what_the_buttons_leave(page: Any) -> None:
    from selenium.webdriver.common.by import By

    def choose(name: str) -> list[str]:
        page.find_element(By.ID, name).find_element(By.XPATH, "..").click()
        return list(page.execute_script(SHOWN))

    assert page.execute_script(SHOWN) == ["three"]  # the page opens with the last model's
    assert page.execute_script(COUNTED) == [True, True] and not page.execute_script(TOO_WIDE)
    assert choose("engine-any") == ["one", "two", "three"]
    assert choose("way1") == ["two", "three"]
    assert choose("kind1") == ["two"]
    assert choose("engine1") == []
    assert choose("kind-any") == ["three"]


@pytest.mark.allow_hosts(["127.0.0.1", "::1"])
def test_the_keyboard_filters_and_paper_has_everything(page: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    stops = []
    while "kind-any" not in stops:
        page.switch_to.active_element.send_keys(Keys.TAB)
        stops.append(page.switch_to.active_element.get_attribute("id"))
        assert len(stops) < 20
    assert [one for one in stops if one] == ["engine1", "way-any", "kind-any"]  # a set of buttons is one stop
    page.find_element(By.ID, "way-any").send_keys(Keys.SHIFT, Keys.TAB)
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script(SHOWN) == ["one", "two"]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.execute_script(SHOWN) == ["one", "two", "three"]
    assert not page.execute_script('return document.querySelector(".filters").checkVisibility()')
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
