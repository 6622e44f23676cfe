"""Damaged and forged updates: what is refused in words, what gets in although it was changed, and what crashes?

    python benchmarks/update_attacks.py --count 10000 --out benchmarks/results/update-attacks.json

Each attack changes one thing (mutations.py: bits, cuts, endless files, keys twice, links, bad names;
mutating_server.py: answers of a web server) of a bundle that is flashed, of a repository that is pulled from a folder
or over HTTP, or of what a box keeps of its trust. It must be refused with an explained error, and the box keep the
bundle that it had. Where a change was let in, the box afterwards must be, byte for byte, one that took the unchanged
update, and the signed part of each metadata file the same: then the change is without meaning. Anything else counts as
accepted. Of each ten attacks on a repository one is followed by a pull of the true one, which must work at once.

Two doors more are counted apart, as hashes and signatures cannot close them: a bundle whose manifest a forger has made
fit again (it is flashed by whoever may flash; a pull refuses it, as its manifest is not signed), and metadata that was
changed and signed again with the right key. Neither may crash; what they lead to is told.

The self-test is a stand-in here: it only notes that it was reached. Native code would begin there, and llama_cpp must
not be imported at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.mutating_server import MutatingServer
from benchmarks.mutations import BY_A_DISK, damage_file, damaged_bytes, damaged_json
from benchmarks.runs import save
from devices.errors import EdgeError
from devices.site.site import Site
from edge_agent import bundle
from edge_agent.bundle import CURRENT, MANIFEST, MODEL, Bundle, verify_files
from edge_agent.engine.machine import installed_versions, this_machine
from export.flash.flash import flash
from export.release.keys import Keys, new_keys
from export.release.layout import METADATA
from export.release.pull import pull
from export.release.repository import init_repository, publish
from export.release.sources import FolderSource, Source, WebSource
from export.release.trust import BOX_ID, TRUST, trust
from tests.tiny_bundle import make_tiny_bundle, rewrite_manifest

LONGEST_S = 10  # of an attempt; an answer takes some hundredths of a second
SHARES = {"flash": 3, "pull from a folder": 4, "pull over HTTP": 2, "the box's trust": 1}
APART = ("forged", "signed again")
Tree = dict[str, str]


class Hung(BaseException):
    """An attempt took too long; no handler of errors takes it for one of its own."""


@contextmanager
def deadline() -> Iterator[None]:
    """Raise Hung in what runs for longer than LONGEST_S; the seconds in which this process is stopped do not count."""
    left = LONGEST_S

    def tick(number: int, frame: FrameType | None) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Hung

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tree_of(folder: Path) -> Tree:
    """Return what is in a folder: links, and the digests of files, of metadata that of its signed part."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            data = path.read_bytes() if path.is_file() else b"no plain file"
            if name.startswith(f"{TRUST}/{METADATA}/"):
                with suppress(DeserializationError):  # a damaged one is compared as it is
                    data = Metadata.from_bytes(data).signed_bytes
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def is_plain(path: Path) -> bool:
    """Return whether a path is a file, and no link to one."""
    return path.is_file() and not path.is_symlink()


class Publisher:
    """Two bundles, a repository with a release of each, and a box that has pulled the first; all can be put back."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw, self.folder, self.reached = Random(f"update-{seed}"), folder, 0
        self.true, self.work = folder / "true", folder / "work"
        self.keys = Keys(folder / "keys")
        self.bundles = [make_tiny_bundle(self.true / f"bundle{fill}", fill) for fill in range(2)]
        new_keys(self.keys.folder)
        root = init_repository(self.true / "repo", self.keys)
        trust(self.true / "box", root)
        publish(self.true / "repo", self.bundles[0], self.keys)
        pull(self.true / "box", FolderSource(self.true / "repo"))
        publish(self.true / "repo", self.bundles[1], self.keys)
        self.server = MutatingServer(self.work / "repo")
        self.put_back()
        self.pull(WebSource(self.server.url))
        self.read = sorted(set(self.server.asked))  # what a pull reads
        self.pulled = tree_of(self.box)
        self.put_back()
        self.flash()
        self.flashed = tree_of(self.box)
        self.put_back()
        self.before = verify_files(self.true / "box" / CURRENT).id

    @property
    def box(self) -> Path:
        """The box under attack."""
        return self.work / "box"

    def put_back(self, *names: str) -> None:
        """Make bundle, repository and box, or some of them, as they were."""
        for name in names or ("bundle1", "repo", "box"):
            shutil.rmtree(self.work / name, ignore_errors=True)
            shutil.copytree(self.true / name, self.work / name, symlinks=True)

    def close(self) -> None:
        """End its web server."""
        self.server.close()

    def selftest(self, tried: Bundle) -> str:
        """Note that native code would begin here."""
        self.reached += 1
        return ""

    def flash(self) -> None:
        """Flash the bundle under attack."""
        flash(self.work / "bundle1", self.box, selftest=self.selftest)

    def pull(self, source: Source | None = None) -> None:
        """Pull from the repository under attack."""
        pull(self.box, source or FolderSource(self.work / "repo"), selftest=self.selftest)

    def damage(self, folder: Path, path: Path, kinds: Sequence[str] = ()) -> str:
        """Damage a file of a folder in one way or another; return in words how. `kinds` are of damage_file."""
        if self.draw.random() < 0.3:
            return damage_file(path, [one for one in sorted(folder.rglob("*")) if is_plain(one)], self.draw, kinds)
        is_json = path.suffix == ".json" and self.draw.random() < 0.7
        kind, data = (damaged_json if is_json else damaged_bytes)(path.read_bytes(), self.draw)
        path.write_bytes(data)
        return kind


def attack_flash(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Damage a bundle; return what was done, in words, the attempt to get it in, and the box as it should be."""
    names = sorted(path.name for path in (world.work / "bundle1").iterdir())
    name = world.draw.choice([*names, *6 * [MANIFEST], *3 * [MODEL]])
    kind = world.damage(world.work / "bundle1", world.work / "bundle1" / name)
    return f"{name}: {kind}", world.flash, world.flashed


def attack_folder(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Damage a repository in a folder; returns as `attack_flash`."""
    repo = world.work / "repo"
    name = world.draw.choice([one for one in world.read if (repo / one).is_file()])
    kind = world.damage(repo, repo / name)
    return f"{_role(name)}: {kind}", world.pull, world.pulled


def attack_http(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Have a web server answer wrongly for one file; returns as `attack_flash`."""
    name = world.draw.choice(world.read)
    kind = world.server.attack(name, world.draw)
    return f"{_role(name)}: {kind}", lambda: world.pull(WebSource(world.server.url)), world.pulled


def attack_trust(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Damage a file of what a box keeps of its trust; returns as `attack_flash`.

    Not its id: any bytes do, and it is another box then (tests/export/release/test_damaged_box.py).
    """
    files = [path for path in sorted((world.box / TRUST).rglob("*")) if is_plain(path) and path.name != BOX_ID]
    path = world.draw.choice(files)
    kind = world.damage(world.box / TRUST, path, BY_A_DISK)
    return f"{path.relative_to(world.box)}: {kind}", world.pull, world.pulled


def attack_forged(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Damage a bundle and make its manifest fit again; returns as `attack_flash`."""
    folder = world.work / "bundle1"
    name = world.draw.choice(sorted(path.name for path in folder.iterdir()))
    is_json = name.endswith(".json") and (name == MANIFEST or world.draw.random() < 0.5)
    kind, data = (damaged_json if is_json else damaged_bytes)((folder / name).read_bytes(), world.draw)
    if name != MANIFEST:
        (folder / name).write_bytes(data)
        rewrite_manifest(folder)
        return f"{name}: {kind}", world.flash, world.flashed
    try:
        plain = json.loads(data)
        del plain["sha256"]
        plain["sha256"] = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        data = (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError, KeyError, TypeError):
        pass  # it is no manifest at all
    (folder / name).write_bytes(data)
    return f"{name}: {kind}", world.flash, world.flashed


def attack_signed(world: Publisher) -> tuple[str, Callable[[], None], Tree]:
    """Change metadata and sign it again with its key; returns as `attack_flash`."""
    name = world.draw.choice([one for one in world.read if one.startswith(METADATA) and "root" not in one])
    path = world.work / "repo" / name
    role = name.split(".")[-2].rpartition("/")[2]
    plain = json.loads(path.read_bytes())
    kind, data = damaged_json(json.dumps(plain["signed"]).encode(), world.draw)
    try:
        signed = json.loads(data)
        signature = world.keys.signers(role)[0].sign((encode_canonical(signed) or "").encode())
        plain = {"signed": signed, "signatures": [{"keyid": signature.keyid, "sig": signature.signature}]}
    except (FormatError, ValueError, RecursionError):  # cannot be signed
        plain["signed"] = None
    path.write_text(json.dumps(plain), encoding="utf-8")
    return f"{role}: {kind}", world.pull, world.pulled


ATTACKS = {
    "flash": attack_flash,
    "pull from a folder": attack_folder,
    "pull over HTTP": attack_http,
    "the box's trust": attack_trust,
    "forged": attack_forged,
    "signed again": attack_signed,
}


def _role(name: str) -> str:
    """Return what a file of a repository is, without its version or hash."""
    if name.startswith("targets/"):
        return "manifest" if name.endswith(".json") else "blob"
    return name.split(".")[-2].rpartition("/")[2]


def attack(world: Publisher, door: str) -> tuple[str, str, str]:
    """Make one attack; return what came of it, what was done, and more about what came of it."""
    world.reached = 0
    world.server.forget()
    what, attempt, wanted = ATTACKS[door](world)
    said = ""
    try:
        with deadline():
            attempt()
    except EdgeError as error:
        found, said = "refused", type(error).__name__
    except Hung:
        return "crashed", what, f"took more than {LONGEST_S} s"
    except Exception as error:  # noqa: BLE001 - a crash is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        return (
            "crashed",
            what,
            f"{type(error).__name__}: {str(error)[:100]} at {frames[-1].filename}:{frames[-1].lineno}",
        )
    else:
        there = tree_of(world.box)
        if door == "the box's trust":  # what was damaged, and what was put there, may stay as it is
            damaged = what.split(":")[0]
            there = {name: wanted[name] if name == damaged else there.get(name, "") for name in wanted}
        found = "without meaning" if there == wanted else "accepted"
    if found == "refused" and (world.reached or verify_files(world.box / CURRENT).id != world.before):
        return "harmed", what, f"{said}, self-tests: {world.reached}"
    return found, what, said


def goes_on(world: Publisher) -> bool:
    """Return whether a box that was attacked takes the true release."""
    world.put_back("repo")
    try:
        with deadline():
            world.pull()
    except (Hung, Exception):  # noqa: BLE001 - whatever it is, the box does not go on
        return False
    return verify_files(world.box / CURRENT).id != world.before


@contextmanager
def sites_parsed_once() -> Iterator[None]:
    """Have the same bytes of a site parsed once: that takes longer than all the rest."""
    parse, known = bundle.load_site, dict[bytes, Site]()

    def load(path: Path) -> Site:
        data = path.read_bytes()
        if data not in known:
            known[data] = parse(path)
        return known[data]

    bundle.load_site = load
    try:
        yield
    finally:
        bundle.load_site = parse


def storm(world: Publisher, door: str, count: int) -> dict[str, Any]:
    """Return what came of so many attacks at a door."""
    found, errors, harmless, wrong, checked = Counter[str](), Counter[str](), Counter[str](), list[str](), 0
    for number in range(count):
        came, what, said = attack(world, door)
        found[came] += 1
        if came == "refused":
            errors[said] += 1
        elif came == "without meaning":
            harmless[what] += 1
        else:
            wrong.append(f"{came}: {what} ({said})" if said else f"{came}: {what}")
        if door.startswith("pull") and number % 10 == 0 and came != "crashed":
            checked += 1
            if not goes_on(world):
                found["harmed"] += 1
                wrong.append(f"does not go on: {what}")
        world.put_back()
    kinds = Counter(wrong)
    return {
        "attacks": count,
        **{name: found[name] for name in ("refused", "without meaning", "accepted", "crashed", "harmed")},
        "refused_as": dict(errors.most_common()),
        "kinds_without_meaning": dict(harmless.most_common()),
        "went_on_with_the_true_one": checked,
        "first": dict(kinds.most_common(40)),
    }


def attacks(count: int, seed: int, folder: Path, apart: int = 0) -> dict[str, Any]:
    """Return what came of `count` attacks at the doors that must hold, and `apart` at each of the two others."""
    with sites_parsed_once(), closing(Publisher(folder, seed)) as world:
        doors = {door: storm(world, door, count * share // sum(SHARES.values())) for door, share in SHARES.items()}
        others = {door: storm(world, door, apart) for door in APART}
    total = {name: sum(one[name] for one in doors.values()) for name in ("attacks", "refused", "without meaning",
                                                                         "accepted", "crashed", "harmed")}  # fmt: skip
    return total | {"doors": doors, "counted_apart": others, "llama_cpp_imported": "llama_cpp" in sys.modules}


def main() -> None:
    """Attack as the command line says; exit with 5 if anything got in or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--apart", type=int, default=1_000, help="at each of the doors that are counted apart")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    started_s, cpu_s = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        figures = attacks(given.count, given.seed, Path(folder), given.apart)
    result = {
        "command": " ".join(["python benchmarks/update_attacks.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "versions": installed_versions(("tuf", "securesystemslib", "urllib3")),
        "seconds": round(time.monotonic() - started_s),
        "cpu_seconds": round(time.process_time() - cpu_s),
        **figures,
    }
    save(result, given.out)
    print(json.dumps(result, indent=1))
    crashed = figures["crashed"] + sum(one["crashed"] for one in figures["counted_apart"].values())
    sys.exit(5 if crashed or figures["accepted"] or figures["harmed"] or figures["llama_cpp_imported"] else 0)


if __name__ == "__main__":
    main()
