"""The trial of a model on a site that it was not trained for: generated cases in simulated worlds, before it acts.

Does not guard against: requests in other words than the cases have. It tells whether a model can read this site's
tools and devices at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from devices.broker.runtime import warn
from devices.durable import write_file
from devices.errors import RefusedError
from devices.site.site import Site
from edge_agent.agent.session import Admit
from edge_agent.agent.simulation import Simulation
from edge_agent.bundle import Bundle
from edge_agent.engine.engine import Engine
from edge_agent.evaluation.scoring import score_case
from edge_agent.evaluation.selftest import play
from edge_agent.plugins import CASE_MAKERS, GENERATOR, load_plugin
from edge_agent.progress import ProgressBar
from edge_agent.wire.chat_template import ChatTemplate

TRIAL_CASES, TRIAL_SEED = 40, 2026
RECORD = "site_trials.json"  # in a box's state folder
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SiteTrial:
    """What came of a trial: cases done right, of how many, and how many moved something wrong."""

    done: int
    cases: int
    wrong_moves: int

    @property
    def share(self) -> float:
        """Cases done of all."""
        return self.done / self.cases

    def __str__(self) -> str:
        return f"{self.done} of {self.cases} generated cases done right, {self.wrong_moves} moved something wrong"

    def require(self, model: str, site: Site, accept: float) -> None:
        """Raise RefusedError if a smaller share was done than is accepted."""
        if self.share < accept:
            raise RefusedError(
                f"{model} does not know {site.name} well enough: {self}",
                hint=f"train it for this site; or --accept {max(self.share - 0.005, 0):.2f} lets it work all the same",
            )


def try_site(engine: Engine, site: Site, template: ChatTemplate, progress: Progress | None = None) -> SiteTrial:
    """Return how an engine does generated cases of a site; nothing real moves. Raises UnavailableError if it fails."""
    cases = list(load_plugin(CASE_MAKERS, GENERATOR)(site, TRIAL_CASES, TRIAL_SEED))
    scores = [score_case(outcome) for outcome in play(engine, site, template, cases, progress)]
    return SiteTrial(sum(one.is_success for one in scores), len(scores), sum(one.is_wrong_move for one in scores))


def admit_if(accept: float) -> Admit:
    """Return what tries a model on a new site and raises RefusedError if it does a smaller share of the cases.

    A box keeps what came of it, for as long as neither the model nor what the site says to it changes.
    """

    def admit(engine: Engine, bundle: Bundle, simulation: Simulation, state: Path | None) -> None:
        site, name = simulation.site, bundle.manifest.name
        key = f"{bundle.manifest.id} {simulation.contract.digest}"
        trial = recorded_trial(state, key)
        if trial is None:
            warn(f"{site.name} is new to {name}: trying it in a simulated world")
            bar = ProgressBar()
            trial = try_site(
                engine, site, bundle.template, lambda done, of: bar.show(done, of, f"{done} of {of} cases")
            )
            bar.close()
            record_trial(state, key, trial)
        warn(f"{name} on {site.name}: {trial}")
        trial.require(name, site, accept)

    return admit


def recorded_trial(state: Path | None, key: str) -> SiteTrial | None:
    """Return the trial that a box has on record for a model and a site; None if there is none that can be read."""
    return _read(state).get(key) if state else None


def record_trial(state: Path | None, key: str, trial: SiteTrial) -> None:
    """Keep a trial in a box's state folder; nowhere for a mere bundle."""
    if state:
        trials = {name: asdict(one) for name, one in (_read(state) | {key: trial}).items()}
        write_file(state / RECORD, (json.dumps(trials, indent=1) + "\n").encode())


def _read(state: Path) -> dict[str, SiteTrial]:
    try:
        return TypeAdapter(dict[str, SiteTrial]).validate_json((state / RECORD).read_bytes())
    except (OSError, ValidationError):
        return {}
