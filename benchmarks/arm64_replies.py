"""Token ids of a model's replies to cases, for both sides of arm64.py; needs the box's packages only, and goes on.

Usage: python arm64_replies.py MODEL.gguf CASES.jsonl SITE REPLIES.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devices.site.site import load_site
from edge_agent.engine.engine import Completion, Request
from edge_agent.engine.machine import this_machine
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import read_cases
from edge_agent.evaluation.selftest import play
from edge_agent.wire.chat_template import load_template


class Recording:
    """An engine that keeps what it said."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.completions: list[Completion] = []
        self.cases = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return what the engine says."""
        made = self._engine.generate(requests)
        self.completions += made
        return made


def main() -> None:
    """Write a line for each case that the file does not have yet: its id, and the tokens and end of each reply."""
    model, cases, site, out = (
        Path(sys.argv[1]),
        read_cases(Path(sys.argv[2])),
        load_site(sys.argv[3]),
        Path(sys.argv[4]),
    )
    template = load_template("chatml")
    settings = EngineSettings(model, context_tokens=CaseSimulation(site, template).context_tokens)
    done = len(out.read_text(encoding="utf-8").splitlines()) if out.exists() else 0
    cases = cases[done:]
    with EngineProcess(settings) as process, out.open("a", encoding="utf-8") as file:
        engine = Recording(process)

        def write(count: int, _: int) -> None:  # called after each reply; a case may have several
            if count == engine.cases:
                return
            engine.cases = count
            replies = [[list(one.token_ids), one.stop_reason] for one in engine.completions]
            print(json.dumps({"id": cases[count - 1].id, "replies": replies}), file=file, flush=True)
            engine.completions.clear()

        play(engine, site, template, cases, write)
    print(json.dumps(this_machine()))


if __name__ == "__main__":
    main()
