from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UsageError
from devices.site.tools import Command
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.evaluation import Evaluation, evaluate
from edge_agent.evaluation.report import (
    EngineRun,
    Provenance,
    build_report,
    read_report,
    terminal_table,
    write_report,
)
from edge_agent.evaluation.report_page import FAILURES_SHOWN, bytes_text, points_text, render_html, reply_pieces
from edge_agent.evaluation.report_plots import latency_plot, percent_text, seconds_text, success_plot
from edge_agent.wire.messages import defuse
from tests.edge_agent.home_cases import answer_text, home_cases, make_case, perfect_engine, start_turn

HOSTILE = "<script>alert(1)</script> turn on \"the\" light & more </details><img src=x onerror='alert(1)'>"
FACTS = Provenance("2026-01-02", "edgewright evaluate", {"processor": "a chip"}, {"python": "3.11"})
VOID = {"meta", "link", "br", "col", "img", "hr", "input", "rect", "line"}


def evaluation(lazy: int = 0, extra: tuple[str, ...] = ()) -> Evaluation:
    """Every case right, except that the first `lazy` ones get an answer instead of a call."""
    cases = home_cases() + [make_case(ask, "call", ask, Command("porch_light", "on", {})) for ask in extra]
    engine = perfect_engine(cases)
    for case in cases[:lazy]:
        engine.replies[case.ask] = (answer_text(f"Thinking of {case.ask}", "The kitchen light is on."),)
    for ask in extra:
        engine.replies[defuse(ask)] = (f"<think>{HOSTILE}</think><tool_call>{HOSTILE}</tool_call>",)
    return evaluate(engine, cases, start_turn, batch_size=4, latency_cases=3)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    runs = [
        EngineRun("untuned", "base", evaluation(4)),
        EngineRun("tuned", "tuned", evaluation()),
        EngineRun("F16", "f16", evaluation(), 2 * 2**30),
        EngineRun("Q4_K_M", "quant", evaluation(1), 800 * 2**20),
    ]
    return build_report(runs, FACTS, title="Home", stage_times_s={"training": 120.0, "quantize": 3.5})


class Page(HTMLParser):
    """Fails on tags that do not nest; gathers attributes, tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_complete(report: dict[str, Any]) -> None:
    assert report["schema"] == "report/v1" and report["cases"] == 9 and report["date"] == "2026-01-02"
    assert [engine["label"] for engine in report["engines"]] == ["untuned", "tuned", "F16", "Q4_K_M"]
    first = report["engines"][0]
    assert first["shares"]["task_success"]["count"] == 5
    assert [failure["id"] for failure in first["failures"]] == ["call-1", "call-2", "call-3", "two-1"]
    failure = first["failures"][0]
    assert failure["expected"] == [{"device": "kitchen_light", "action": "on", "input": {}, "status": "done"}]
    assert failure["got"] == [] and failure["claims_success"] and "Thinking of" in failure["replies"][0]
    assert first["success"]["call-1"] is False and first["success"]["ask-1"] is True
    assert report["stage_times_s"] == {"training": 120.0, "quantize": 3.5}


def test_differences_pair_what_belongs_together(report: dict[str, Any]) -> None:
    pairs = [(item["from"], item["to"]) for item in report["differences"]]
    assert pairs == [("untuned", "tuned"), ("tuned", "F16"), ("tuned", "Q4_K_M"), ("F16", "Q4_K_M")]
    gain, loss = report["differences"][0]["metrics"], report["differences"][2]["metrics"]
    assert gain["task_success"]["difference"] == pytest.approx(4 / 9) and gain["task_success"]["gained"] == 4
    assert loss["task_success"]["lost"] == 1


def test_the_page_is_well_formed_and_needs_nothing(report: dict[str, Any]) -> None:
    html = render_html(report)
    page = Page(html)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not {"src", "href", "style", "srcset", "action"} & page.attributes
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.tags.count("svg") == 3 and "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html


def test_the_page_says_the_main_numbers(report: dict[str, Any]) -> None:
    text = " ".join(Page(render_html(report)).text.split())
    assert "Q4_K_M does 88.9 % of the 9 tasks; the untuned model does 55.6 %" in text
    assert "+44.4 points" in text and "−11.1" in text and "0 cases gained, 1 lost" in text
    assert "edgewright evaluate" in text and "a chip" in text and "python 3.11" in text


def test_what_the_model_said_is_escaped(tmp_path: Path) -> None:
    runs = [EngineRun(f"<b>{HOSTILE}", "quant", evaluation(0, (HOSTILE,)))]
    facts = Provenance(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE})
    report = build_report(runs, facts, title=HOSTILE, stage_times_s={HOSTILE: 1.0})
    _, html_path = write_report(report, tmp_path)
    html = html_path.read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags and "img" not in page.tags and "onerror" not in page.attributes
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert page.text.count("<script>alert(1)</script>") >= 5


def test_one_engine_and_no_latency_is_enough() -> None:
    cases = home_cases()[:1]
    alone = evaluate(perfect_engine(cases), cases, start_turn, batch_size=1, latency_cases=0)
    report = build_report([EngineRun("Q8_0", "quant", alone)], FACTS, title="One")
    page = Page(render_html(report))
    assert page.tags.count("svg") == 1 and "None of the 1 tasks failed." in page.text
    assert "Q8_0" in terminal_table(report)


def test_no_cases_at_all() -> None:
    empty = evaluate(perfect_engine([]), [], start_turn, batch_size=1)
    report = build_report([EngineRun("a", "base", empty), EngineRun("b", "tuned", empty)], FACTS, title="Empty")
    Page(render_html(report))
    assert "no cases" in terminal_table(report)


def test_many_failures_are_capped_on_the_page_only() -> None:
    asks = tuple(f"request {number}" for number in range(FAILURES_SHOWN + 5))
    report = build_report([EngineRun("a", "quant", evaluation(0, asks))], FACTS, title="Many")
    assert len(report["engines"][0]["failures"]) == FAILURES_SHOWN + 5
    html = render_html(report)
    assert html.count('<details class="case ') == FAILURES_SHOWN + 6  # and the examples of what was done well
    assert f"a failed {FAILURES_SHOWN + 5} ({FAILURES_SHOWN} are shown)." in Page(html).text


def test_every_engine_s_failures_are_there_to_be_filtered(report: dict[str, Any]) -> None:
    html = render_html(report)
    assert "untuned failed 4, tuned failed 0, F16 failed 0, Q4_K_M failed 1." in Page(html).text
    assert 'id="engine1" checked><span>Q4_K_M<' in html and 'id="kind0"' in html
    assert [one["ways"] for one in report["engines"][3]["failures"]] == [["no call", "says done"]]
    for failure in report["engines"][0]["failures"]:
        del failure["ways"]  # as an older report has it
    assert "Q4_K_M failed 1." in Page(render_html(report)).text


def test_written_report_reads_back_and_renders_the_same(report: dict[str, Any], tmp_path: Path) -> None:
    json_path, html_path = write_report(report, tmp_path / "new")
    again = read_report(json_path)
    assert again == json.loads(json.dumps(report))
    assert render_html(again) == html_path.read_text(encoding="utf-8")
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["report.html", "report.json", "report.md"]
    text = (json_path.parent / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"### {report['title']}: {report['cases']} cases\n\n| engine | tasks done |")
    assert all(f"\n| {engine['label']} |" in text for engine in report["engines"])
    assert all(f"\n| {kind} | {count} |" in text for kind, count in report["cases_by_kind"].items())


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "report/v2"}', "{"])
def test_other_files_are_no_reports(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"report\.json"):
        read_report(path)


def test_runs_must_be_comparable() -> None:
    some = evaluation()
    with pytest.raises(UsageError, match="at least one"):
        build_report([], FACTS, title="")
    with pytest.raises(UsageError, match="'a'"):
        build_report([EngineRun("a", "base", some), EngineRun("a", "tuned", some)], FACTS, title="")
    other = evaluation(0, ("another",))
    with pytest.raises(UsageError, match="different cases"):
        build_report([EngineRun("a", "base", some), EngineRun("b", "tuned", other)], FACTS, title="")


def test_terminal_table_is_aligned(report: dict[str, Any]) -> None:
    lines = terminal_table(report).splitlines()
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[2].startswith("untuned") and "55.6 % (27 to 81)" in lines[2]
    assert lines[7].startswith("untuned → tuned: +44.4 points (")


def test_texts() -> None:
    assert [seconds_text(value) for value in (None, 0.0123, 1.24, 42, 600, 7200)] == [
        "–", "12 ms", "1.2 s", "42 s", "10 min", "2 h 00 min",
    ]  # fmt: skip
    assert (percent_text(None), percent_text(0.925), percent_text(1, 0)) == ("–", "92.5 %", "100 %")
    assert [points_text(value) for value in (None, 0.1, -0.1, -0.0001)] == ["–", "+10.0", "−10.0", "0.0"]
    assert (bytes_text(None), bytes_text(2**20), bytes_text(3 * 2**29)) == ("–", "1 MiB", "1.50 GiB")


@pytest.mark.parametrize(
    ("reply", "pieces"),
    [
        ("<think>a</think>b", [("thought", "a"), ("text", "b")]),
        ('<think>a</think><tool_call>{"x":1}</tool_call>', [("thought", "a"), ("call", '{"x":1}')]),
        ("b <b> c", [("text", "b <b> c")]),
        ("", []),
    ],
)
def test_reply_pieces(reply: str, pieces: list[tuple[str, str]]) -> None:
    assert reply_pieces(reply) == pieces


def test_an_unfinished_reply_is_shown_whole() -> None:
    for cut in range(len("<think>a</think><tool_call>{}</tool_call>")):
        reply = "<think>a</think><tool_call>{}</tool_call>"[:cut]
        shown = "".join(piece for _, piece in reply_pieces(reply))
        assert set("a{}") & set(reply) <= set(shown)
    assert "more characters" in reply_pieces("a" * 3000)[-1][1]


def test_plots_stay_inside() -> None:
    share = {"share": 1.0, "low": 0.9, "high": 1.0}
    latency = {"seconds": [0.5, 3.0], "turn_s": {"median": 1.7, "p95": 2.9}}
    engines = [{"label": "<a>", "role": "quant", "shares": {"task_success": share}, "latency": latency}]
    for plot in (success_plot(engines), latency_plot(engines)):
        assert all(0 <= float(value) <= 100 for value in re.findall(r'"(-?[\d.]+)%"', plot))
        assert "&lt;a&gt;" in plot


def test_machine_and_versions() -> None:
    assert {"system", "cores", "processor"} <= this_machine().keys()
    versions = installed_versions(["jinja2", "no-such-package"])
    assert set(versions) == {"python", "jinja2"}
