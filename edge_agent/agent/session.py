"""Run a bundle on a site's devices, real or simulated: one request, a file of them, or a conversation."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devices.broker.journal import JOURNAL_IN_BOX, Journal
from devices.broker.narrowing import narrowed
from devices.broker.policy import Mode
from devices.broker.runtime import Confirm, SiteRuntime, default_journal, live_runtime, simulated_runtime, warn
from devices.drivers.registry import require_drivers
from devices.errors import UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import Site, load_site
from edge_agent.agent.asked import new_conversation, note_asked
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import ActionRecord, TurnResult
from edge_agent.bundle import Bundle, hold_bundle, is_on_box
from edge_agent.engine.autotune import load_tuning
from edge_agent.engine.machine import this_machine
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.wire.contract import require_contract

FORGOTTEN = "(This conversation has become too long for me: I have forgotten its beginning.)"
ROOM_BYTES = 4 << 30  # of address space, for the engine beside the model, which it maps and packs anew
MORNING_S = 8 * 3600.0  # where a simulated clock stands for requests that nobody waits for, so that they repeat


Admit = Callable[[EngineProcess, Bundle, Simulation, Path | None], None]


@dataclass
class AgentSession:
    """A model at work: the engine is loaded and primed. Simulated worlds are fresh, real devices are what they are."""

    site: Site
    simulation: Simulation
    engine: EngineProcess
    journal: Journal
    says_yes: bool
    mode: Mode
    is_live: bool
    name: str  # of the bundle

    def answers(self, conversations: Iterable[Sequence[str]]) -> Iterator[dict[str, Any]]:
        """Yield what came of each request. A conversation has one or more, and they may refer to each other.

        Each conversation is in a fresh copy of the simulated world, or all are on the real devices.
        """
        confirm: Confirm | None = (lambda effect: True) if self.says_yes else None
        if self.is_live:
            with self._runtime(confirm, warn) as runtime:
                for asks in conversations:
                    yield from self._converse(runtime, asks)
                runtime.wait_for_endings(warn)
            return
        for asks in conversations:
            with self._runtime(confirm, warn) as runtime:
                yield from self._converse(runtime, asks)

    def _converse(self, runtime: SiteRuntime, asks: Iterable[str]) -> Iterator[dict[str, Any]]:
        agent, conversation = self.simulation.agent_in(runtime), new_conversation()
        for ask in asks:
            started_s = time.perf_counter()
            result = agent.ask(self.engine, ask)
            note_asked(runtime.broker, conversation, result)
            yield to_json(result, runtime, time.perf_counter() - started_s)

    def converse(self, read: Callable[[], str | None], write: Callable[[str], None], confirm: Confirm) -> None:
        """Talk with a person until `read` returns None; a simulated world's clock is the wall clock."""
        now = time.localtime()
        clock_s = now.tm_hour * 3600 + now.tm_min * 60
        with self._runtime(confirm if not self.says_yes else lambda effect: True, write, clock_s) as runtime:
            agent, conversation = self.simulation.agent_in(runtime), new_conversation()
            seen_s = time.monotonic()
            self.engine.prefill_idle(agent.next_prompt_start())  # while the person thinks
            while (ask := read()) is not None:
                runtime.advance(time.monotonic() - seen_s)
                seen_s = time.monotonic()
                if ask.strip():
                    result = agent.ask(self.engine, ask.strip())
                    note_asked(runtime.broker, conversation, result)
                    for line in action_lines(result.actions):
                        write(line)
                    write(result.answer)
                    if result.has_forgotten:
                        write(FORGOTTEN)
                self.engine.prefill_idle(agent.next_prompt_start())

    @contextmanager
    def _runtime(
        self, confirm: Confirm | None, log: Callable[[str], None], clock_s: float = MORNING_S
    ) -> Iterator[SiteRuntime]:
        if self.is_live:
            runtime = live_runtime(self.site, self.journal, confirm, self.mode)
            runtime.keep_time(log)
        else:
            runtime = simulated_runtime(World(self.site, time_s=clock_s), self.journal, confirm, self.mode)
        try:
            yield runtime
        finally:
            for problem in runtime.close():
                log(problem)


def refuse_new_site(engine: EngineProcess, bundle: Bundle, simulation: Simulation, state: Path | None) -> None:
    """Raise ContractChanged: a model works no site that it was not trained for, unless it is tried on it."""
    del engine, state
    require_contract(bundle.contract, simulation.contract.digest, f"bundle {bundle.manifest.name}")


@contextmanager
def open_session(
    path: Path,
    site: str,
    *,
    journal: Path | None = None,
    says_yes: bool = False,
    mode: Mode = "auto",
    is_live: bool = False,
    gpu_layers: int = 0,
    threads: int | None = None,
    sequences: int = 1,
    intents: str = "",
    admit: Admit = refuse_new_site,
    tell: Callable[[str], None] = warn,
) -> Iterator[AgentSession]:
    """Open a bundle or a box, verify it, check that it knows the site, load and prime the model.

    Args:
        path: a bundle, or a box's root.
        site: name or file of the site or toolset; the bundle's policy can only narrow its own. "" is the bundle's.
        journal: where actions are recorded; a box has its own by default, a bundle the site's if live, else none.
        says_yes: whether the person has confirmed beforehand whatever needs confirmation.
        mode: what the broker carries out; see Broker.
        is_live: real devices through the site's drivers, and not a simulated world; a toolset's functions always are.
        gpu_layers: layers on the GPU; -1 for all of them.
        threads: of the engine; None lets it choose.
        sequences: how many conversations keep what the engine evaluated of them.
        intents: language of Home Assistant's sentences, which are looked for before the model is asked; "" for none.
        admit: called with the engine, the bundle, a simulation of the site and the box's state folder, if there is one,
            before a model works a site that it was not trained for; raises if it may not.
        tell: hears when the engine had to be started again.

    Raises:
        UsageError: no such site or bundle, or a device without a driver.
        RefusedError: the bundle was changed, was trained for another contract, or may not work the site.
        UnavailableError: the journal cannot be written, or llama.cpp failed.
    """
    own = load_site(site) if site else None
    with hold_bundle(path) as bundle:
        own, is_live, is_known = fitting_site(bundle, own, is_live=is_live)
        here = narrowed(own, bundle.site)
        simulation = Simulation(here, bundle.template, ask_below=bundle.ask_below, intents=intents)
        state = state_folder(path, bundle)
        with EngineProcess(engine_settings(bundle, simulation, state, gpu_layers, threads, sequences), tell) as engine:
            if not is_known:
                admit(engine, bundle, simulation, state)
            engine.prime(simulation.agent(World(here)).prefix)
            in_box = state / JOURNAL_IN_BOX.name if state else None
            events = Journal(journal or in_box or (default_journal(here) if is_live else None))
            try:
                yield AgentSession(here, simulation, engine, events, says_yes, mode, is_live, bundle.manifest.name)
            finally:
                events.close()


def fitting_site(bundle: Bundle, own: Site | None, *, is_live: bool) -> tuple[Site, bool, bool]:
    """Return the site that a bundle works (None: its own), whether it is live, and whether the model knows it.

    Raises:
        UsageError: a device without a driver.
        RefusedError: the bundle was trained for another contract.
    """
    own = own or bundle.site
    is_live = is_live or own.is_toolset  # there is no world in which functions could be tried
    if is_live:
        require_drivers(own)
    return own, is_live, bundle.require_site(own)


def prime_box(box: Path) -> bool:
    """Evaluate what every prompt on a box begins with and cache it in the box, so that its first start is a quick one.

    A box with another version of llama.cpp or settings of its own does it anew at its first start. The bundle's files
    are not compared again: a flash has just done it.

    Returns:
        Whether that was cached already.

    Raises:
        UsageError, UnavailableError: there is no box, or the engine failed; the box works all the same.
    """
    with hold_bundle(box, is_read=False) as bundle:
        simulation = Simulation(bundle.site, bundle.template)
        with EngineProcess(engine_settings(bundle, simulation, _state_of(box))) as engine:
            return engine.prime(simulation.agent(World(bundle.site)).prefix)


def engine_settings(
    bundle: Bundle,
    simulation: Simulation,
    state: Path | None,
    gpu_layers: int = 0,
    threads: int | None = None,
    sequences: int = 1,
) -> EngineSettings:
    """Return how an engine runs a bundle here; a box's state folder has its measured settings and cache."""
    tuning = load_tuning(state, measured_for(bundle))
    attention = tuning.flash_attention
    if sequences > 1 and attention is None and not gpu_layers:  # several conversations, one reply at a time
        attention = tuning.kv_type != "f16"
    return EngineSettings(
        bundle.model_path,
        adapter=bundle.adapter_path,
        cache=state,
        identity=bundle.model_identity,
        context_tokens=simulation.context_tokens,
        gpu_layers=gpu_layers,
        tuning=replace(tuning, threads=threads or tuning.threads, flash_attention=attention),
        sequences=sequences,
        memory_bytes=None if gpu_layers else 3 * bundle.model_path.stat().st_size + ROOM_BYTES,
    )


def state_folder(path: Path, bundle: Bundle) -> Path | None:
    """Return where a box keeps what it knows: its journal and the engine's primed state; None for a mere bundle."""
    return _state_of(path) if is_on_box(bundle.path) and bundle.path != path.resolve() else None


def _state_of(box: Path) -> Path:
    folder = (box / JOURNAL_IN_BOX).parent
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot keep a journal in the box: {error}", hint="give --journal FILE") from error
    return folder


def measured_for(bundle: Bundle) -> dict[str, str]:
    """Return what an engine's settings are measured for: the model and this machine's processor."""
    return {"model": bundle.model_identity, "processor": this_machine()["processor"]}


def action_lines(actions: Iterable[ActionRecord]) -> list[str]:
    """Return what was done as lines for people, one for devices with which the same was done alike."""
    alike: dict[str, list[str]] = {}
    for one in actions:
        values = "".join(f" {name}={value}" for name, value in one.input.items())
        alike.setdefault(f"{one.action}{values}: {one.status.replace('_', ' ')}", []).append(one.device)
    return [f"  {', '.join(devices)} {what}" for what, devices in alike.items()]


def to_json(result: TurnResult, runtime: SiteRuntime, total_s: float) -> dict[str, Any]:
    """Return a turn as plain data, with every property after it. Times in seconds."""
    completions = result.completions
    return {
        "ask": result.ask,
        "answer": result.answer,
        "thought": result.thought,
        "actions": [
            {"device": item.device, "action": item.action, "input": item.input, "status": item.status}
            for item in result.actions
        ],
        "state": runtime.state(),
        "timings": {
            "total_s": round(total_s, 4),
            "prefill_s": round(sum(item.prefill_s for item in completions), 4),
            "decode_s": round(sum(item.decode_s for item in completions), 4),
            "model_steps": sum(item.model_steps for item in completions),
            "tokens": sum(len(item.token_ids) for item in completions),
        },
    }


def read_asks(path: Path) -> list[list[str]]:
    """Return the conversations of a file, or of standard input for `-`.

    A line is a request, or a conversation of several as a JSON list of strings; blank lines are left out.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the requests {path}: {error}") from error
    return [
        _conversation_of(f"{path}:{number}", line.strip())
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _conversation_of(where: str, line: str) -> list[str]:
    if not line.startswith("["):
        return [line]
    try:
        asks = json.loads(line)
    except ValueError as error:
        raise UsageError(
            f"{where}: not JSON: {error}", hint='a conversation is ["first request", "second request"]'
        ) from error
    if not asks or not all(isinstance(ask, str) and ask.strip() for ask in asks):
        raise UsageError(f"{where}: a conversation is a list of requests", hint='["first request", "second request"]')
    return asks
