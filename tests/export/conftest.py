"""One tiny base, run and export for all tests of this package: making them takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent.wire import ChatTemplate, load_template
from tests.tiny_base import make_tiny_base, make_tiny_run, tiny_texts


@dataclass(frozen=True)
class Tiny:
    """What `edgewright train` and `edgewright export` make, tiny. `export` is export.json."""

    base: Path
    run: Path
    work: Path
    bundle: Path
    export: dict[str, Any]
    template: ChatTemplate
    texts: list[str]

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"

    @property
    def f16(self) -> Path:
        return self.work / "model-F16.gguf"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    from export.export import Wishes, export_run

    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_base(folder / "base")
    run = make_tiny_run(folder / "run", base)
    export = export_run(run, ["F16", "Q8_0", "Q4_K_M"], folder / "bundle", wishes=Wishes(may_be_endless=True))
    return Tiny(base, run, folder / "gguf", folder / "bundle", export, load_template("chatml"), tiny_texts())
