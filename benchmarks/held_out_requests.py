"""What a model does of the requests in finetune/asks/held_out, by suite: the table of docs/results.md by one command.

    python benchmarks/held_out_requests.py MODEL.gguf --suites home,still,conversations,sites --out RESULT.json
    python benchmarks/held_out_requests.py MODEL.gguf --suites whole,generated,renamed --out RESULT.json

MODEL is a GGUF that `edgewright export` made, or a bundle. A suite ends in `_dev` if its misses may be read; those of
others are never shown. A suite takes its cases at even distances; `whole` are all of `home`. `generated` are cases from
the generator that makes training data, `renamed` those with other names of tools and arguments. Turns in which
something moved that was not to are counted; what is wrong otherwise is a value, an answer, or nothing done. Two cores:
a second a request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from edge_agent.engine.machine import installed_versions, this_machine

ROOT = Path(__file__).parents[1]
SITES = ("greenhouse", "bench_arm", "support", "database")


@dataclass(frozen=True)
class Suite:
    """Cases that are put to a site, and how many.

    Attributes:
        site: it.
        file: of finetune/asks/held_out, or "" for generated cases.
        cases: how many of them.
        options: further ones of `edgewright eval`.
    """

    site: str
    file: str
    cases: int
    options: tuple[str, ...] = ()


SUITES = {
    "home": Suite("home", "home.yaml", 120),
    "still": Suite("home", "home_still.yaml", 120),
    "conversations": Suite("home", "home_conversations.yaml", 20),
    "home_whole": Suite("home", "home.yaml", 502),
    "still_whole": Suite("home", "home_still.yaml", 334),
    "conversations_whole": Suite("home", "home_conversations.yaml", 61),
    "generated": Suite("home", "", 200),
    "renamed": Suite("home", "", 200, ("--renamed", "3")),
    "home_dev": Suite("home", "home_dev.yaml", 242),
    "still_dev": Suite("home", "home_still_dev.yaml", 150),
    "still2_dev": Suite("home", "home_still2_dev.yaml", 200),
    "several_dev": Suite("home", "home_several_dev.yaml", 130),
    "conversations_dev": Suite("home", "home_conversations_dev.yaml", 50),
    **{site: Suite(site, f"{site}.yaml", 60) for site in SITES},
    **{f"{site}_dev": Suite(site, f"{site}_dev.yaml", 50) for site in SITES},
}
GROUPS = {
    "sites": SITES,
    "sites_dev": tuple(f"{site}_dev" for site in SITES),
    "whole": ("home_whole", "still_whole", "conversations_whole"),
}


def run(model: Path, suite: Suite) -> dict[str, Any]:
    """Return what a model does of a suite: right, total, share and 95 % interval, of all and by kind."""
    cases = ["--cases", str(ROOT / "finetune" / "asks" / "held_out" / suite.file)] if suite.file else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgewright", "eval", str(model.resolve()), "--site", suite.site, *cases]
        command += ["-n", str(suite.cases), *suite.options, "--out", folder]
        started_s = time.monotonic()
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started_s
        report = json.loads((Path(folder) / ("own_cases.json" if suite.file else "report.json")).read_text("utf-8"))
    if suite.file:
        (found,) = report["models"]
        cases_text = f"{suite.file}, {suite.cases} at even distances"
        shares, turns = found["kinds"], len(found["turns"])
        moved = sum(any(" became " in problem for problem in turn["problems"]) for turn in found["turns"])
    else:
        (found,) = report["engines"]
        cases_text = " ".join((f"{suite.cases} generated", *suite.options))
        shares, turns = found["by_kind"], found["cases"]
        found["all"], moved = found["shares"]["task_success"], found["shares"]["wrong_move"]["count"]
    return {
        "cases": cases_text,
        "all": found["all"],
        "kinds": {kind: [share["count"], share["total"]] for kind, share in shares.items()},
        "moved_wrongly": moved,
        "seconds_a_turn": round(seconds / turns, 3),
    }


def main() -> None:
    """Run suites of one model, print them, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--suites", default="home,still,conversations,sites", help=f"{', '.join([*SUITES, *GROUPS])}")
    parser.add_argument("--of", default="", help="what the model is, for the file of results")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = [one for name in given.suites.split(",") for one in GROUPS.get(name, (name,))]
    if unknown := [name for name in names if name not in SUITES]:
        parser.error(f"no suite {unknown[0]}; there are {', '.join([*SUITES, *GROUPS])}")
    result: dict[str, Any] = {
        "command": f"python benchmarks/held_out_requests.py {given.model.name} --suites {given.suites}",
        "model": given.of or given.model.name,
        "date": str(date.today()),
        "machine": this_machine(),
        "versions": installed_versions(),
        "suites": {},
    }
    for name in names:
        result["suites"][name] = found = run(given.model, SUITES[name])
        share = found["all"]
        kinds = ", ".join(f"{kind} {right} of {of}" for kind, (right, of) in found["kinds"].items())
        print(f"{name}: {share['share']:.1%} ({share['low']:.0%} to {share['high']:.0%}) of {share['total']}: {kinds};"
              f" {found['moved_wrongly']} moved wrongly; {found['seconds_a_turn']} s a turn", flush=True)  # fmt: skip
        save(result, given.out)


if __name__ == "__main__":
    main()
