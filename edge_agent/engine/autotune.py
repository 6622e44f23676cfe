"""The engine's settings on this machine, found by measuring: `edgewright bench --tune` keeps them in the box.

One setting after another takes the value with which the same requests are answered soonest, the others staying as they
are. A saved file is used only for the model and the processor that it was measured with.

Does not guard against: a machine that is busy while it is measured (measure again), or that gets hot only later.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from devices.durable import write_file

KvType = Literal["f16", "q8_0"]
TUNING_FILE = "engine.json"
WARM_ASKS = 4  # of the requests, the first ones, that do not count
WORTHWHILE = 0.03  # by how much another value must be faster, so that noise chooses nothing


@dataclass(frozen=True)
class Tuning:
    """How an engine computes; none of it changes what is asked of the model.

    Attributes:
        threads: None takes one for a small model, else one for each core.
        batch_tokens: evaluated at once.
        flash_attention: None is llama.cpp's choice on a GPU, and none on a CPU: it makes a long prompt 10 % quicker
            there, and the few tokens of a step up to four times slower.
        repacks: whether weights are repacked for the processor; None is as llama_cpp_model.py has it.
        mmap: whether weights are mapped from their file and not read into memory.
        mlock: whether they are held there, as far as the system lets; never tried, for machines that swap.
        kv_type: of keys and values; "q8_0" halves their memory and rounds them.
        draft_tokens: length of a draft, made from what was said before (n-gram lookup).
    """

    threads: int | None = None
    batch_tokens: int = 256
    flash_attention: bool | None = None
    repacks: bool | None = None
    mmap: bool = True
    mlock: bool = False
    kv_type: KvType = "f16"
    draft_tokens: int = 0


USUAL = Tuning()


@dataclass(frozen=True)
class Trial:
    """A tuning and what it took.

    Attributes:
        tuning: the settings.
        call_s: the median time of a reply.
        memory_bytes: the process's peak.
        said: a digest of all replies.
    """

    tuning: Tuning
    call_s: float
    memory_bytes: int
    said: str = ""


def candidates(cores: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the values to try for each setting, in the order in which they are tried."""
    return [
        ("threads", tuple(sorted({1, 2, 3, cores // 2, cores} & set(range(1, cores + 1))))),
        ("flash_attention", (False, True)),
        ("repacks", (False, True)),
        ("mmap", (False,)),
        ("batch_tokens", (128, 512)),
        ("draft_tokens", (4, 8, 15)),
        ("kv_type", ("q8_0",)),
    ]


def tune(measure: Callable[[Tuning], Trial], cores: int, log: Callable[[Trial], None]) -> Tuning:
    """Return the quickest settings; rounded keys and values only if every reply is the same.

    Args:
        measure: runs the same requests with some settings.
        cores: that this process may use.
        log: takes each trial.
    """
    best = measure(Tuning())
    log(best)
    for name, values in candidates(cores):
        for value in values:
            if value == getattr(best.tuning, name):
                continue
            trial = measure(replace(best.tuning, **{name: value}))
            log(trial)
            is_allowed = name != "kv_type" or trial.said == best.said
            if is_allowed and trial.call_s < best.call_s * (1 - WORTHWHILE):
                best = trial
    return best.tuning


def time_calls(answer: Callable[[str], object], asks: Sequence[str]) -> float:
    """Return the median time of requests, in seconds, each asked once: a second time, the draft would be perfect."""
    times = []
    for ask in asks:
        started_s = time.perf_counter()
        answer(ask)
        times.append(time.perf_counter() - started_s)
    return statistics.median(times[WARM_ASKS:] or times)


def save_tuning(folder: Path, tuning: Tuning, measured_for: Mapping[str, str]) -> None:
    """Write the settings into a box's state folder."""
    plain = {"schema": "engine/v1", "measured_for": dict(measured_for), "tuning": asdict(tuning)}
    write_file(folder / TUNING_FILE, (json.dumps(plain, indent=2) + "\n").encode())


def load_tuning(folder: Path | None, measured_for: Mapping[str, str]) -> Tuning:
    """Return the settings that were saved for this model and machine; the usual ones if there are none."""
    if folder is None:
        return Tuning()
    try:
        plain = json.loads((folder / TUNING_FILE).read_text(encoding="utf-8"))
        if plain["schema"] != "engine/v1" or plain["measured_for"] != dict(measured_for):
            return Tuning()
        found = Tuning(**plain["tuning"])
    except (OSError, ValueError, KeyError, TypeError):
        return Tuning()
    return found if _is_sound(found) else Tuning()


def _is_sound(tuning: Tuning) -> bool:
    """Return whether settings are of the types and sizes that an engine takes."""
    counts = (tuning.threads, tuning.batch_tokens, tuning.draft_tokens)
    return (
        all(type(one) is int and 0 <= one <= 4096 for one in counts if one is not None)
        and bool(tuning.batch_tokens)
        and tuning.threads != 0
        and tuning.flash_attention in (None, True, False)
        and tuning.repacks in (None, True, False)
        and all(type(one) is bool for one in (tuning.mmap, tuning.mlock))
        and tuning.kv_type in ("f16", "q8_0")
    )
