"""A thousand boxes against one static repository: does a good release reach all, and where does a bad one stop?

    python benchmarks/fleet.py --boxes 1000 --out benchmarks/results/fleet.json

Each box is a folder with its own trust, id and bundle, and runs the real `pull` over HTTP against a web server on the
loopback address, one process of boxes beside another. Of the server's answers some are cut, slow, 404, 503 or none at
all. Some boxes have a clock in 1970 or 2038, which is put right after some days; some are never reached. A day is one
pull of each box. The canaries follow the channel `canary`, the others `stable`.

The operator is played by the real `publish`: to canaries, then to more and more of stable, each time with the answers
(`trust/answer.json`) of the boxes that were reached. Nobody else stops anything.

The trial is a stand-in, through the argument that the self-test goes in by, as in the tests: it fails on the bundle
that is bad, everywhere or on some boxes. A thousand runs of a model would take a day. Sites are parsed once for each
process.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any

from tuf.ngclient._internal import trusted_metadata_set

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.loopback_server import LoopbackServer
from benchmarks.runs import save
from benchmarks.update_attacks import sites_parsed_once
from devices.errors import EdgeError, GateError
from edge_agent.bundle import CURRENT, Bundle, open_bundle
from edge_agent.engine.machine import installed_versions, this_machine
from export.release.answers import ANSWER
from export.release.keys import Keys, new_keys
from export.release.pull import pull
from export.release.repository import init_repository, publish
from export.release.sources import FolderSource, WebSource
from export.release.trust import TRUST, trust
from tests.tiny_bundle import make_tiny_bundle

FAULTS = {"cut": 0.02, "slow": 0.01, "404": 0.01, "503": 0.01, "no answer": 0.01}  # of a web server's answers
SLOW_S = 0.05
WRONG_CLOCKS, UNREACHED, CANARIES = 0.05, 0.02, 0.03  # of the boxes
RIGHT_AFTER_DAYS = 3  # a wrong clock is put right
MOST_DAYS = 30  # in which a release must have reached all
WAVE_DAYS = 3  # before more boxes are given it
FIRST_WAVE = 10  # percent of stable
FEW = 3  # percent of stable that are given a release where no canaries go first
BAD_SHARE = 0.2  # of the boxes on which a bundle fails that is bad on some
MOST_TRIED = 0.05  # of the boxes may try a bad release


@dataclass(frozen=True)
class Box:
    """A box of the fleet. `year` is its clock's, or 0 if that is right; `is_frail`: what is bad on some is bad here."""

    number: int
    channel: str
    year: int
    is_reached: bool
    is_frail: bool


@dataclass(frozen=True)
class Day:
    """What all boxes have in common on a day: the repository, what fails the trial, and where."""

    url: str
    fleet: Path
    bad: str = ""
    is_bad_everywhere: bool = True
    are_clocks_right: bool = False


def make_boxes(count: int, draw: Random) -> list[Box]:
    """Return the fleet."""
    return [
        Box(
            number,
            "canary" if number < count * CANARIES else "stable",
            draw.choice((1970, 2038)) if draw.random() < WRONG_CLOCKS else 0,
            draw.random() >= UNREACHED,
            draw.random() < BAD_SHARE,
        )
        for number in range(count)
    ]


@contextmanager
def clock_of(year: int) -> Iterator[None]:
    """Have the Update Framework's client see a clock of a year; 0 for the right one."""
    if not year:
        yield
        return
    plain, clock = trusted_metadata_set.datetime, datetime.datetime(year, 1, 2, tzinfo=datetime.UTC)
    said = types.SimpleNamespace(now=clock.astimezone)
    trusted_metadata_set.datetime = types.SimpleNamespace(datetime=said, timezone=datetime.timezone)
    try:
        yield
    finally:
        trusted_metadata_set.datetime = plain


def pull_all(boxes: Sequence[Box], day: Day) -> list[tuple[int, str, bool]]:
    """Have boxes pull once; return of each its number, the state or the error, and whether it tried what is bad."""
    found = []
    with sites_parsed_once():
        for box in boxes:
            tried = []

            def trial(bundle: Bundle, box: Box = box, tried: list[str] = tried) -> str:
                is_bad = bundle.manifest.id == day.bad
                tried.extend(["bad"] * is_bad)
                if is_bad and (day.is_bad_everywhere or box.is_frail):
                    raise GateError("self-test: 20 cases, 20 not as recorded (1 may be)")
                return "self-test: 20 cases, 0 not as recorded (1 may be)"

            try:
                with clock_of(0 if day.are_clocks_right else box.year):
                    state = pull(root_of(day.fleet, box), WebSource(day.url), box.channel, selftest=trial).state
            except EdgeError as error:
                state = type(error).__name__
            found.append((box.number, state, bool(tried)))
    return found


def root_of(fleet: Path, box: Box) -> Path:
    """Return a box's root."""
    return fleet / f"box{box.number}"


class FaultyServer(LoopbackServer):
    """A static web server on the loopback address, with FAULTS; `answers` counts what it did."""

    def __init__(self, folder: Path, draw: Random) -> None:
        self.answers = Counter[str]()
        outer, kinds, shares = self, ["whole", *FAULTS], [1 - sum(FAULTS.values()), *FAULTS.values()]

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                kind, path = draw.choices(kinds, shares)[0], folder / self.path.lstrip("/")
                outer.answers[kind] += 1
                if kind in ("404", "503") or not path.is_file():
                    with suppress(OSError):
                        self.send_error(503 if kind == "503" else 404)
                    return
                if kind == "no answer":
                    return
                data, begin = path.read_bytes(), int(self.headers.get("Range", "bytes=0-")[6:-1])
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                half = (begin + len(data)) // 2
                with suppress(OSError):
                    self.wfile.write(data[begin:half])
                    time.sleep(SLOW_S * (kind == "slow"))
                    self.wfile.write(data[half:] if kind != "cut" else b"")

        super().__init__(Handler)


class Operator:
    """Who publishes, with a repository, its fleet and bundles."""

    def __init__(self, folder: Path, count: int, seed: int, workers: int) -> None:
        self.folder, self.repo, self.fleet, self.draw = folder, folder / "repo", folder / "fleet", Random(f"f-{seed}")
        self.boxes, self.workers, self.pulls = make_boxes(count, self.draw), workers, Counter[str]()
        self.keys = Keys(folder / "keys")
        new_keys(self.keys.folder)
        self.bundles = [make_tiny_bundle(folder / f"bundle{fill}", fill) for fill in range(4)]
        self.root = init_repository(self.repo, self.keys)
        self.server = FaultyServer(self.repo, self.draw)
        self.fleet.mkdir()

    def id_of(self, number: int) -> str:
        """Return a bundle's id."""
        return open_bundle(self.bundles[number]).manifest.id

    def start(self) -> None:
        """Give each box the root's trust and the first bundle, which is there before the net has faults."""
        for channel in ("canary", "stable"):
            publish(self.repo, self.bundles[0], self.keys, channel=channel)
        first = self.fleet / "first"
        trust(first, self.root)
        with sites_parsed_once():
            pull(first, FolderSource(self.repo))
        for box in self.boxes:
            root = root_of(self.fleet, box)
            shutil.copytree(first, root, symlinks=True)
            (root / TRUST / "id").write_text(hashlib.sha256(f"{box.number}".encode()).hexdigest()[:32])
        shutil.rmtree(first)

    def reached(self, channel: str = "") -> list[Box]:
        """Return the boxes that can be reached, of a channel or of all."""
        return [one for one in self.boxes if one.is_reached and channel in ("", one.channel)]

    def has(self, number: int, channel: str = "") -> int:
        """Return how many of the boxes that can be reached have a bundle."""
        wanted = self.id_of(number)
        return sum((root_of(self.fleet, one) / CURRENT).readlink().name == wanted for one in self.reached(channel))

    def days(self, count: int, is_through: Callable[[], bool] = lambda: False, **of_day: Any) -> tuple[int, set[int]]:
        """Let so many days pass, or fewer if something is so; return how many, and which boxes tried what is bad."""
        tried: set[int] = set()
        for number in range(1, count + 1):
            day = Day(self.server.url, self.fleet, are_clocks_right=number > RIGHT_AFTER_DAYS, **of_day)
            for box, state, has_tried in self._pull_all(self.reached(), day):
                self.pulls[state] += 1
                tried |= {box} if has_tried else set()
            if is_through():
                return number, tried
        return count, tried

    def _pull_all(self, boxes: Sequence[Box], day: Day) -> list[tuple[int, str, bool]]:
        if self.workers < 2:
            return pull_all(boxes, day)
        shares = [boxes[at :: self.workers] for at in range(self.workers)]
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            return [one for part in pool.map(pull_all, shares, [day] * self.workers) for one in part]

    def answers(self) -> Path:
        """Return a folder of the answers of all boxes that can be reached, collected anew."""
        folder = self.folder / "answers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for box in self.reached():
            path = root_of(self.fleet, box) / TRUST / ANSWER
            if path.is_file():
                shutil.copyfile(path, folder / f"box{box.number}.json")
        return folder

    def gives_more(self, number: int, **options: Any) -> str:
        """Publish a bundle to more boxes, if the answers of those that were reached let it; return why not, or ""."""
        enough = round(0.9 * len(self.reached("canary")))
        try:
            publish(self.repo, self.bundles[number], self.keys, answers=self.answers(), at_least=enough, **options)
        except GateError as error:
            return str(error)
        return ""


def good_release(operator: Operator, number: int) -> dict[str, Any]:
    """Bring a release to canaries, a first wave, and all; return the figures."""
    canaries = len(operator.reached("canary"))
    publish(operator.repo, operator.bundles[number], operator.keys, channel="canary")
    canary_days, _ = operator.days(MOST_DAYS, lambda: operator.has(number, "canary") == canaries)
    stopped = [operator.gives_more(number, percent=FIRST_WAVE)]
    operator.days(WAVE_DAYS)
    in_first_wave = operator.has(number, "stable")
    stopped.append(operator.gives_more(number))
    reached = len(operator.reached())
    days, _ = operator.days(MOST_DAYS, lambda: operator.has(number) == reached)
    return {
        "boxes": len(operator.boxes),
        "reached": reached,
        "arrived": operator.has(number),
        "canaries": canaries,
        "canary_days": canary_days,
        "in_first_wave": in_first_wave,
        "days_of_the_last_wave": days,
        "stopped": [why for why in stopped if why],
    }


def bad_release(operator: Operator, number: int, *, has_canaries: bool) -> dict[str, Any]:
    """Bring a release that is bad to canaries, or to a few boxes of stable if there are none; return the figures.

    With canaries it fails the trial everywhere, without them on some boxes, so that others do take it.
    """
    first = {"channel": "canary"} if has_canaries else {"percent": FEW}
    publish(operator.repo, operator.bundles[number], operator.keys, **first)  # type: ignore[arg-type]
    bad = operator.id_of(number)
    _, tried = operator.days(WAVE_DAYS, bad=bad, is_bad_everywhere=has_canaries)
    stopped = operator.gives_more(number)
    _, later = operator.days(1, bad=bad, is_bad_everywhere=has_canaries)
    return {
        "offered_to": "canaries" if has_canaries else f"{FEW} % of stable",
        "fails_on": "every box" if has_canaries else f"{BAD_SHARE:.0%} of the boxes",
        "tried": len(tried | later),
        "tried_share": round(len(tried | later) / len(operator.boxes), 4),
        "run_it": operator.has(number),
        "stopped": stopped,
    }


def rollout(folder: Path, count: int, seed: int, workers: int) -> dict[str, Any]:
    """Return what came of a good release, of two that are bad, and of the way back."""
    operator = Operator(folder, count, seed, workers)
    try:
        operator.start()
        found: dict[str, Any] = {"good": good_release(operator, 1)}
        found["bad"] = bad_release(operator, 2, has_canaries=True)
        found["bad_on_some"] = bad_release(operator, 3, has_canaries=False)
        for channel in ("canary", "stable"):
            publish(operator.repo, operator.bundles[1], operator.keys, channel=channel)
        reached = len(operator.reached())
        days, _ = operator.days(MOST_DAYS, lambda: operator.has(1) == reached)
        found["back"] = {"reached": reached, "arrived": operator.has(1), "days": days}
    finally:
        operator.server.close()
    return found | {"pulls": dict(operator.pulls.most_common()), "answers_of_the_server": dict(operator.server.answers)}


def problems(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be, in words."""
    said = [f"{name}: {one['arrived']} of {one['reached']} arrived" for name, one in found.items()
            if name in ("good", "back") and one["arrived"] != one["reached"]]  # fmt: skip
    said += [f"a good release was stopped: {why}" for why in found["good"]["stopped"]]
    for name in ("bad", "bad_on_some"):
        if not found[name]["stopped"]:
            said.append(f"{name}: nothing stopped it")
        if found[name]["tried_share"] > MOST_TRIED or not found[name]["tried"]:
            said.append(f"{name}: {found[name]['tried']} boxes tried it")
    return said + (["bad: a box runs it"] if found["bad"]["run_it"] else [])


def main() -> None:
    """Roll out as the command line says; exit with 5 if a release did not arrive or stop where it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = rollout(Path(folder), given.boxes, given.seed, given.workers)
    result = {
        "command": " ".join(["python benchmarks/fleet.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "versions": installed_versions(("tuf", "urllib3")),
        "seconds": round(time.monotonic() - started_s),
        "faults": FAULTS | {"wrong clocks": WRONG_CLOCKS, "never reached": UNREACHED},
        **found,
        "problems": problems(found),
    }
    save(result, given.out)
    print(json.dumps(result, indent=1))
    sys.exit(5 if result["problems"] else 0)


if __name__ == "__main__":
    main()
