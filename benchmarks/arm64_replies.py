"""Token ids of a model's replies to held-out cases, as JSON: for both sides of arm64.py; needs the box's packages only.

python arm64_replies.py MODEL.gguf CASES.jsonl SITE > replies.json
"""

from __future__ import annotations

import json
import sys
import time
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
    """An engine that keeps what it was asked and what it said."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.kept: list[tuple[Request, Completion]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return what the engine says."""
        made = self._engine.generate(requests)
        self.kept += zip(requests, made, strict=True)
        return made


def main() -> None:
    """Print each case's replies."""
    model, cases, site = Path(sys.argv[1]), read_cases(Path(sys.argv[2])), load_site(sys.argv[3])
    template = load_template("chatml")
    settings = EngineSettings(model, context_tokens=CaseSimulation(site, template).context_tokens)
    found = []
    started = time.monotonic()
    with EngineProcess(settings) as process:
        for case in cases:
            engine = Recording(process)
            play(engine, site, template, [case])
            found.append({"id": case.id, "replies": [[list(one.token_ids), one.stop_reason] for _, one in engine.kept]})
            print(f"{len(found)}/{len(cases)}", file=sys.stderr, flush=True)
    print(json.dumps({"machine": this_machine(), "seconds": time.monotonic() - started, "cases": found}))


if __name__ == "__main__":
    main()
