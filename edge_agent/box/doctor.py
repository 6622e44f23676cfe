"""`edgewright doctor`: look at this machine and a box's root, and say whether the agent will run there.

Every check is made, whatever the others find: of a bundle that cannot be opened the site is still read. Nothing is
changed: what is tried on the disk is in a folder that is removed at once, and no device is opened.

Does not guard against: what shows only at work; `edgewright selftest` runs the model, `devices read --live` asks the
devices. It looks as the user who starts it: for a service, start it as the service's user.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devices.broker.journal import JOURNAL_IN_BOX
from devices.driver import Needs
from devices.drivers.registry import needs_of
from devices.errors import EdgeError
from devices.site.site import Site, load_site
from edge_agent.agent.session import engine_settings
from edge_agent.agent.simulation import Simulation
from edge_agent.box.finding import Finding, Report, failure, guarded
from edge_agent.box.hardware import check_clock, check_memory, check_processor, check_python, check_temperature
from edge_agent.box.machine import Machine, user_name
from edge_agent.box.site_needs import all_modules, check_needs, check_site
from edge_agent.box.software import LLAMA_CPP, check_bundle, check_llama_cpp, check_packages
from edge_agent.box.storage import check_disk, check_file_system, check_journal, check_state
from edge_agent.bundle import EXPORT, SITE, Bundle, find_bundle, open_bundle
from edge_agent.engine.llama_cpp_probe import Probe, probe
from edge_agent.engine.memory_need import MemoryNeed, memory_need
from edge_agent.serving.configuration import Configuration

Progress = Callable[[str], None]
AGAIN = "flash the bundle again"


@dataclass(frozen=True)
class _Seen:
    """What could be read of a box: None or empty where it could not.

    Attributes:
        path: as it was given: a box's root, or a bundle.
        is_there: whether that is a folder.
        folder: the bundle's.
        bundle: opened and verified.
        export: its export.json.
        problems: findings about what could not be read.
    """

    path: Path
    is_there: bool
    folder: Path | None
    bundle: Bundle | None
    export: dict[str, object]
    problems: tuple[Finding, ...] = ()

    @property
    def root(self) -> Path | None:
        """The box's root; None for a mere bundle, and if there is nothing."""
        return self.path if self.is_there and self.folder != self.path.resolve() else None

    @property
    def version(self) -> str:
        """Of llama-cpp-python at the export, or ""."""
        versions = self.export.get("versions")
        return str(versions.get(LLAMA_CPP, "")) if isinstance(versions, dict) else ""

    @property
    def time(self) -> str:
        """Of the export, or ""."""
        return str(self.export.get("time", ""))


def examine(
    path: Path,
    site: str = "",
    *,
    is_live: bool = False,
    journal: Path | None = None,
    machine: Machine | None = None,
    progress: Progress = lambda what: None,
) -> Report:
    """Look at everything and return what was found; raises nothing that a check can find.

    Args:
        path: a box's root, or a bundle.
        site: name or file of the site or toolset; "" is the bundle's own.
        is_live: also connect, once, to the hosts that drivers name, and require a driver for every device.
        journal: the journal's file; None is the box's own.
        machine: None is this one.
        progress: hears what is looked at next.
    """
    machine = machine or Machine()
    progress("the bundle's files")
    seen = _look(path)
    progress("llama.cpp")
    found = probe(seen.bundle.model_path if seen.bundle else None)
    own, of_site = _site(seen, site)
    progress("the machine and its disk")
    findings = [
        *_of_machine(machine, seen, own, found),
        *_of_box(machine, seen, journal),
        *guarded("llama.cpp", lambda: check_llama_cpp(found, seen.version, is_model_whole=bool(seen.bundle)), AGAIN),
        *of_site,
    ]
    if own is not None:
        progress("the site's drivers")
        findings += _of_site(machine, seen, own, is_live=is_live)
    return Report(path, tuple(findings))


def _look(path: Path) -> _Seen:
    folder: Path | None = None
    is_there = False
    try:
        is_there = path.is_dir()
        folder = find_bundle(path)
        return _Seen(path, is_there, folder, open_bundle(path), _export_of(folder))
    except EdgeError as error:
        problem = failure("bundle", str(error), error.hint or AGAIN)
    except OSError as error:
        problem = failure("bundle", f"cannot be read: {error}", f"sudo chown -R {user_name()} {path}")
    return _Seen(path, is_there, folder, None, _export_of(folder) if folder else {}, (problem,))


def _export_of(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / EXPORT).read_bytes())
    except (OSError, ValueError, RecursionError):  # if it was changed, opening the bundle says so
        return {}
    return found if isinstance(found, dict) else {}


def _site(seen: _Seen, wanted: str) -> tuple[Site | None, list[Finding]]:
    """Return the site whose devices are worked, or what is wrong with it."""
    if not wanted and seen.bundle:
        return seen.bundle.site, []
    source = wanted or (seen.folder / SITE if seen.folder else None)
    if source is None:
        return None, []  # the finding about the bundle says it
    try:
        return load_site(source), []
    except EdgeError as error:
        return None, [failure("site", str(error), error.hint or "`edgewright devices check` says what is wrong")]


def _of_machine(machine: Machine, seen: _Seen, own: Site | None, found: Probe) -> list[Finding]:
    def memory() -> list[Finding]:
        conversations = Configuration().conversations
        one, served = (_memory_need(seen.bundle, own, count) if seen.bundle else None for count in (1, conversations))
        return [check_memory(machine, one, served, conversations)]

    return [
        *guarded("processor", lambda: check_processor(machine, found.features, found.version), "look at /proc/cpuinfo"),
        *check_python(machine),
        *guarded("memory", memory, AGAIN),
        *guarded("clock", lambda: check_clock(machine, seen.time), "set the clock"),
        *guarded("temperature", lambda: check_temperature(machine), "look at /sys/class/thermal"),
    ]


def _memory_need(bundle: Bundle, own: Site | None, conversations: int) -> MemoryNeed:
    simulation = Simulation(own or bundle.site, bundle.template)
    state = bundle.path.parent.parent / JOURNAL_IN_BOX.parent
    settings = engine_settings(bundle, simulation, state if state.is_dir() else None)
    weights = sum(one.stat().st_size for one in (bundle.model_path, bundle.adapter_path) if one)
    context = settings.context_tokens or 0
    return memory_need(bundle.header.metadata, weights, context, settings.tuning, conversations)


def _of_box(machine: Machine, seen: _Seen, journal: Path | None) -> list[Finding]:
    root, fix = seen.root, "check the disk: sudo dmesg | tail"
    findings = [*seen.problems]
    if seen.bundle:
        findings += check_bundle(seen.bundle)
    if root:
        findings += guarded("disk", lambda: check_disk(machine, root, seen.folder), fix)
        findings += guarded("file system", lambda: check_file_system(machine, root), fix)
        findings += guarded("state", lambda: check_state(machine, root), fix)
    if file := journal or (root / JOURNAL_IN_BOX if root else None):
        hint = "keep this file for whoever looks into it, and start another: --journal FILE"
        findings += guarded("journal", lambda: check_journal(machine, file, is_in_box=journal is None), hint)
    return findings


def _of_site(machine: Machine, seen: _Seen, own: Site, *, is_live: bool) -> list[Finding]:
    findings = guarded(
        "site", lambda: check_site(own, seen.bundle, is_live=is_live), "take a site that it was made for"
    )
    needs: dict[str, Needs] = {}
    for driver in own.drivers:
        title = f"driver {driver}"
        try:
            needs[title] = needs_of(own, driver)
        except EdgeError as error:
            hint = error.hint or "`edgewright devices check` says in which line"
            findings.append(failure(title, str(error), hint))
    findings += guarded("packages", lambda: check_packages(all_modules(needs)), "pip install 'edgewright[box]'")
    for title, one in needs.items():
        findings += guarded(title, partial(check_needs, machine, title, one, is_live=is_live), "look at it")
    return findings
