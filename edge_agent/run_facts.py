"""What a training run says of itself, in its run.json: run/v1. Written by training, read by export and evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from devices.errors import UsageError

RUN_FILE = "run.json"
HELD_OUT_FILE = "held_out.jsonl"  # of a toolset's run


@dataclass(frozen=True)
class DataFacts:
    """The rows a run was trained on; `rows` and `tokens` count what was kept."""

    path: str
    sha256: str
    rows: int
    tokens: int
    trained_tokens: int
    dropped: int


@dataclass(frozen=True)
class GeneralFacts:
    """General data that was mixed in, and what became of its held-out rows: before training and after it.

    Losses are means of all of them; `exact` counts how many of the `short` ones, whose replies have few tokens, are
    said word for word.
    """

    data: str
    rows: int
    rejected: int
    held_out_rows: int
    loss_before: float
    loss_after: float
    short: int = 0
    exact_before: int = 0
    exact_after: int = 0


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The contents of run.json, in its order. Losses are (step, mean loss of the trained tokens).

    `any_site` is set where a run's rows are of any sites: the digest of how sites are written down (wire/contract.py).

    What has a default is missing in runs of before it was written.
    """

    schema: Literal["run/v1"] = "run/v1"
    base: str
    base_sha256: dict[str, str]
    site: str
    template: str
    contract: str
    any_site: str = ""
    data: DataFacts
    versions: dict[str, str]
    device: str
    dtype: str
    optimizer: str
    trained_parameters: int
    all_parameters: int
    losses: tuple[tuple[int, float], ...]
    held_out_losses: tuple[tuple[int, float], ...] = ()
    general: GeneralFacts | None = None
    seconds: float
    tokens_per_s: float
    seed: int
    processes: int = 1

    def to_json(self) -> str:
        """Return the text of run.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_run_facts(run: Path) -> RunFacts:
    """Return what the run in a folder says of itself.

    Raises:
        UsageError: its run.json cannot be read, or is not one of run/v1.
    """
    file = run / RUN_FILE
    try:
        return TypeAdapter(RunFacts).validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error}", hint="give a folder that `edgewright train` made") from error
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join(map(str, (*first["loc"], first["msg"])))
        raise UsageError(f"{file}: not a run: {problem}", hint="this version reads run/v1") from error
