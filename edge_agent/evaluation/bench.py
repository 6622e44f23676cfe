"""How quickly a box answers, and which settings of the engine are quickest on it: `edgewright bench`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import Site, load_site
from edge_agent.agent.session import measured_for, state_folder
from edge_agent.agent.simulation import Simulation
from edge_agent.bundle import open_bundle
from edge_agent.engine.autotune import Trial, Tuning, load_tuning, save_tuning, time_calls, tune
from edge_agent.engine.engine import Completion, Request
from edge_agent.engine.process import EngineProcess, EngineSettings

QUESTIONS = 16


def bench(path: Path, site_name: str, *, is_tuning: bool, log: Callable[[Trial], None]) -> dict[str, Any]:
    """Return how long a reply takes on this machine, with the settings it has or the quickest ones, which are kept.

    Args:
        path: a bundle, or a box's root; only a box keeps settings.
        site_name: name or file of the site; "" is the one that came with the bundle.
        is_tuning: whether settings are tried.
        log: takes each trial.

    Raises:
        UsageError: no such bundle or site, or a bundle that is not on a box is to be tuned.
        UnavailableError: the engine failed.
    """
    bundle = open_bundle(path)
    site = bundle.narrow(load_site(site_name) if site_name else bundle.site)
    folder = state_folder(path, bundle)
    if is_tuning and folder is None:
        raise UsageError(f"{path} is no box, which keeps settings", hint="flash the bundle first, then give the box")
    simulation = Simulation(site, bundle.template)
    requests = _requests(simulation, site)
    prefix = simulation.agent(World(site)).prefix

    def measure(tuning: Tuning) -> Trial:
        settings = EngineSettings(
            bundle.model_path,
            adapter=bundle.adapter_path,
            context_tokens=simulation.context_tokens,
            tuning=tuning,
        )
        with EngineProcess(settings) as engine:
            engine.prime(prefix)
            replies: list[Completion] = []
            call_s = time_calls(lambda ask: replies.extend(engine.generate([requests[ask]])), list(requests))
            said = hashlib.sha256(repr([one.token_ids for one in replies]).encode()).hexdigest()
            return Trial(tuning, call_s, engine.memory_bytes(), said)

    facts = measured_for(bundle)
    if not is_tuning:
        trial = measure(load_tuning(folder, facts))
        log(trial)
        return asdict(trial)
    trials: list[Trial] = []

    def note(trial: Trial) -> None:
        trials.append(trial)
        log(trial)

    best = tune(measure, len(os.sched_getaffinity(0)), note)
    assert folder is not None
    save_tuning(folder, best, facts)
    return asdict(next(trial for trial in trials if trial.tuning == best)) | {"trials": [asdict(one) for one in trials]}


def _requests(simulation: Simulation, site: Site) -> dict[str, Request]:
    """Return questions about devices or tools, by their words; the state differs from one to the next, as in use."""
    requests: dict[str, Request] = {}
    for name, _ in zip(cycle(site.functions), range(QUESTIONS), strict=False):
        ask = f"what can you do with {name.replace('_', ' ')}, question {len(requests) + 1}?"
        requests[ask] = next(simulation.agent(World(site)).run(ask))
    for number, device in enumerate(islice(cycle(site.devices), QUESTIONS)):
        state = World(site).snapshot()
        for values in state.values():
            for name, value in values.items():
                if isinstance(value, bool):
                    values[name] = value != bool(number % 2)
        asked = "what is the state of" if number < len(site.devices) else "tell me about"
        ask = f"{asked} the {device.replace('_', ' ')}?"
        requests[ask] = next(simulation.agent(World(site, state)).run(ask))
    return requests
