"""What a model file did with own cases, kept, so that a run that was killed goes on and the same one is there at once.

A result is found again only for the same model file, adapter, site, settings, case and version of llama.cpp, and only
while no line of this program has changed: a stale result would be a wrong one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from devices.durable import sha256_of
from devices.site.site import Site
from edge_agent.base_models import cache_folder
from edge_agent.evaluation.own.own_cases import Graded, OwnCase
from edge_agent.wire.messages import compact_json

PACKAGES = ("devices", "edge_agent")
ROOT = Path(__file__).parents[3]


class ResultCache:
    """The results of one model on one site with one way to run it. A result that cannot be kept is made again."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Read what is there. `identity` is all that a result depends on but the case."""
        self._path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.jsonl"
        self._known: dict[str, list[Graded]] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            try:
                plain = json.loads(line)
                self._known[plain["case"]] = [_graded(one) for one in plain["turns"]]
            except (ValueError, KeyError, TypeError):  # cut by a kill
                continue

    def get(self, case: OwnCase) -> list[Graded] | None:
        """Return what came of a case, or None if that is not known."""
        return self._known.get(_key(case))

    def put(self, case: OwnCase, turns: list[Graded]) -> None:
        """Keep what came of a case."""
        self._known[_key(case)] = turns
        line = compact_json({"case": _key(case), "turns": [asdict(one) for one in turns]})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}" if self._is_cut() else line)
                file.write("\n")
        except OSError:
            return

    def _is_cut(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(0, 2)
            if file.tell() == 0:
                return False
            file.seek(-1, 2)
            return file.read(1) != b"\n"


def result_cache(model: Path, adapter: Path | None, site: Site, settings: object) -> ResultCache:
    """Return the cache of a model file on a site. `settings` are whatever else decides a reply."""
    files = [sha256_of(one) for one in (model, *([adapter] if adapter else []))]
    parts = [*files, site.model_dump_json(), repr(settings), version("llama-cpp-python"), program_digest()]
    return ResultCache(cache_folder() / "evaluations", "\0".join(parts))


@cache
def program_digest() -> str:
    """Return the SHA-256 in hex of every file of this program that a reply or its grade could depend on."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in {".py", ".yaml", ".jinja"}:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _key(case: OwnCase) -> str:
    return hashlib.sha256(case.model_dump_json().encode()).hexdigest()


def _graded(plain: dict[str, Any]) -> Graded:
    return Graded(**plain | {key: tuple(plain[key]) for key in ("actions", "problems", "ways")})
