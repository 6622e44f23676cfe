"""What `edgewright eval` does with each kind of cases: grade the models on them, write the report, hold the limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, cast, get_args

from devices.drivers.registry import require_drivers
from devices.durable import write_file
from devices.errors import GateError, UsageError, did_you_mean
from devices.site.renaming import renamed
from devices.site.site import Site
from edge_agent.evaluation.baselines.few_shot import FewShot
from edge_agent.evaluation.cases import CASES
from edge_agent.evaluation.conversations.executed import Execution
from edge_agent.evaluation.conversations.turn_report import METRICS, executed_line, to_plain, turns_table
from edge_agent.evaluation.conversations.turns import cases_of, read_conversations, renamed_conversations
from edge_agent.evaluation.evaluation import spread
from edge_agent.evaluation.models.grading import evaluate_models, execute, grade_bfcl, grade_turns, load_or_make_cases
from edge_agent.evaluation.models.model import find_model, find_models
from edge_agent.evaluation.models.placement import Placement, for_each
from edge_agent.evaluation.own.own_cases import read_own_cases
from edge_agent.evaluation.own.own_evaluation import OwnSuite, evaluate_own
from edge_agent.evaluation.report import terminal_table, write_report
from edge_agent.evaluation.report_page import render_own_cases, render_turns
from edge_agent.evaluation.suites import bfcl, ha_intents
from edge_agent.plugins import CASE_MAKERS, GENERATOR, load_plugin
from edge_agent.run_facts import HELD_OUT_FILE
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of


@dataclass(frozen=True)
class EvalCommand:
    """What was asked for, whatever the cases are.

    Attributes:
        models: as models.model.find_model takes them.
        site: a site or a toolset.
        out: the folder of the report.
        placement: where models run.
        count: how many cases; None: all that a file has, or CASES new ones.
        states: in how many starting states each own case is begun.
        is_typed_otherwise: ask each own case in other ways of typing too.
        is_fresh: run own cases again whose result is known.
        shows_misses: list what went wrong in own cases.
        limits: least share of the last model by metric or kind.
        as_json: print the report instead of a table.
        few_shot: untrained models are graded with these examples in their prompt too; generated cases only.
    """

    models: tuple[str, ...]
    site: Site
    out: Path
    placement: Placement
    count: int | None
    states: int
    is_typed_otherwise: bool
    is_fresh: bool
    shows_misses: bool
    limits: Mapping[str, float]
    as_json: bool
    few_shot: FewShot | None = None

    def grade_cases(self, path: Path | None, seed: int, names_seed: int | None, stage_times: Path | None) -> None:
        """Grade models on generated cases of the site, those of a file or new ones; writes report.html and .json."""
        other = None if names_seed is None else renamed(self.site, Random(names_seed))
        keep = self.out / "cases.jsonl"
        cases = load_or_make_cases(
            path, lambda: load_plugin(CASE_MAKERS, GENERATOR), other or self.site, self.count or CASES, seed, keep
        )
        times = json.loads(stage_times.read_text(encoding="utf-8")) if stage_times else {}
        report = evaluate_models(
            self.models,
            self.site,
            cases,
            self.placement,
            command=_command_line(),
            stage_times_s=times,
            renamed=other,
            few_shot=self.few_shot,
        )
        json_path, html_path = write_report(report, self.out)
        print(json_path.read_text(encoding="utf-8") if self.as_json else f"{terminal_table(report)}\n{html_path}")
        self._require(report["engines"][-1]["label"], report["engines"][-1]["shares"])

    def grade_own_file(self, path: Path) -> None:
        """Grade models on cases that a person wrote; writes own_cases.html and .json."""
        title = f"{self.site.name}: requests of {path.name}"
        self._grade_own(OwnSuite(read_own_cases(path, self.site), title, str(path)), self.site)

    def grade_suite(self, given: str) -> None:
        """Grade models on cases of others. Raises UsageError if no suite has that name."""
        name, _, folder = given.partition("=")
        if name == bfcl.NAME:
            self._grade_bfcl(folder)
        elif name == ha_intents.NAME:
            found = ha_intents.read_ha_intents(ha_intents.find_ha_intents(folder))
            print("\n".join(ha_intents.left_out_lines(found)), file=sys.stderr)
            title = "Home Assistant's intents: sentences of its tests"
            self._grade_own(OwnSuite(found.cases, title, name, found.left_out), found.home.site)
        else:
            raise UsageError(f"no suite is called {name!r}", hint=f"there are {bfcl.NAME} and {ha_intents.NAME}")

    def _grade_own(self, suite: OwnSuite, site: Site) -> None:
        tables, plain = evaluate_own(
            [find_model(name, site) for name in self.models],
            replace(suite, cases=spread(suite.cases, self.count)) if self.count else suite,
            site,
            self.placement,
            command=_command_line(),
            states=self.states,
            typed=self.is_typed_otherwise,
            is_fresh=self.is_fresh,
            shows_misses=self.shows_misses,
        )
        self._write(plain, "\n\n".join(tables), "own_cases", render_own_cases(plain))
        last = plain["models"][-1]
        in_states = {"in_all_states": last["states"]["in_all"]} if last["states"] else {}
        typed = {one["way"]: one["right"] for one in last["typed"]}
        self._require(last["label"], {**last["kinds"], "total": last["all"], **in_states, **typed})

    def _grade_bfcl(self, folder: str) -> None:
        """Grade models on BFCL, on all cases or some of each category; writes bfcl.json."""
        cases = bfcl.read_bfcl(bfcl.find_bfcl(folder), self.count)
        found = find_models(self.models, self.site)
        graded = for_each(found, self.placement, lambda model: (model.label, grade_bfcl(model, cases, self.placement)))
        plain: dict[str, Any] = {"title": "BFCL v4", "command": _command_line(), "models": bfcl.bfcl_plain(graded)}
        self._write(plain, bfcl.bfcl_table(graded), "bfcl")
        last = plain["models"][-1]
        self._require(last["label"], last["constrained"]["categories"])

    def grade_replies(self, path: Path | None, execution: str, names_seed: int | None) -> None:
        """Grade models on the replies of a toolset's held-out conversations; writes turns.html and turns.json.

        Raises:
            UsageError: options that do not go together, no conversations, or no driver for live execution.
        """
        if execution and names_seed is not None:
            hint = "executors know the tools by their own names: give one of them"
            raise UsageError("--execute and --renamed", hint=hint)
        if execution and execution not in get_args(Execution):
            raise UsageError(f"--execute {execution}", hint=f"choose from {', '.join(get_args(Execution))}")
        if execution == "live":
            if self.placement.ray:
                raise UsageError("--execute live acts from this machine", hint="leave --ray out")
            require_drivers(self.site)
        held_out = [Path(name) / HELD_OUT_FILE for name in self.models]
        path = path or next((one for one in held_out if one.is_file()), None)
        if path is None:
            hint = f"give --cases RUN/{HELD_OUT_FILE}, or the run among the models"
            raise UsageError("on which conversations?", hint=hint)
        found = find_models(self.models, self.site)
        conversations = read_conversations(path, contract_of(self.site, load_template(found[0].template)))
        if names_seed is not None:
            conversations = renamed_conversations(conversations, self.site, names_seed)
        cases = [case for one in conversations for case in cases_of(one)]
        graded = for_each(found, self.placement, lambda model: (model.label, grade_turns(model, cases, self.placement)))
        how = cast(Execution, execution)
        executed = [execute(one, self.site, conversations, self.placement, how) for one in found] if execution else []
        plain: dict[str, Any] = {
            "title": f"{self.site.name}{'' if names_seed is None else ', tools renamed'}: replies in own conversations",
            "command": _command_line(),
            "cases": str(path),
            "replies": len(cases),
            "models": to_plain(graded, executed),
        }
        lines = [f"{len(cases)} replies of {path}", turns_table(graded)]
        lines += [executed_line(model.label, done) for model, done in zip(found, executed, strict=False)]
        page = render_turns(plain, [(name, title) for name, title, _ in METRICS])
        self._write(plain, "\n".join(lines), "turns", page)
        last = plain["models"][-1]
        self._require(last["label"], last["constrained"]["metrics"])

    def _write(self, plain: Mapping[str, Any], table: str, name: str, page: str = "") -> None:
        """Write a report as JSON, and as a page if there is one; print it."""
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain, ensure_ascii=False, indent=1)
        write_file(self.out / f"{name}.json", text.encode())
        if page:
            write_file(self.out / f"{name}.html", page.encode())
        print(text if self.as_json else f"{table}\n\n{self.out / name}.{'html' if page else 'json'}")

    def _require(self, label: str, shares: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise GateError if a model's share is below its limit, or there was nothing to measure."""
        for name, least in self.limits.items():
            if name not in shares:
                raise UsageError(f"--fail-under {name}: not measured", hint=did_you_mean(name, shares))
            share = shares[name]["share"]
            if share is None or share < least:
                counts = f"{shares[name]['count']} of {shares[name]['total']}"
                found = "no case" if share is None else f"{share:.1%} ({counts})"
                raise GateError(f"{label}: {name} is {found}, less than {least:.1%}")


def _command_line() -> str:
    return " ".join(["edgewright", *sys.argv[1:]])
