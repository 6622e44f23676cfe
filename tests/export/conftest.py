"""One tiny base, run and export for all tests of this package: making them takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.wire.chat_template import ChatTemplate, load_template
from export.gates import parity
from export.trained.reference import Reference
from export.trained.samples import Sample
from tests.tiny_base import make_tiny_base, make_tiny_run, tiny_samples
from tests.tiny_bundle import make_tiny_bundle


@dataclass(frozen=True)
class Tiny:
    """What `edgewright train` and `edgewright export` make, tiny. `export` is export.json."""

    base: Path
    run: Path
    work: Path
    bundle: Path
    export: dict[str, Any]
    template: ChatTemplate
    samples: list[Sample]

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"

    @property
    def f16(self) -> Path:
        return self.work / "model-F16.gguf"

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.samples]

    @property
    def f16_reference(self) -> parity.F16Reference:
        return parity.F16Reference(self.f16, self.samples)

    def check(self, gguf: Path, nf4_dtype: str = "") -> parity.Distance:
        """Hold an F16 file against this base with its adapter, through every gate."""
        return check_all(self.base, self.adapter, self.template, gguf, self.samples, nf4_dtype)


def check_all(
    base: Path, adapter: Path | None, template: ChatTemplate, gguf: Path, samples: list[Sample], nf4_dtype: str = ""
) -> parity.Distance:
    """Hold an F16 file against a base with its adapter, through every gate."""
    parity.check_texts(base, template, gguf, samples)
    return parity.check_logits(Reference(base, adapter, nf4_dtype), parity.F16Reference(gguf, samples), GateLimits())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    from export.pipeline import export_run

    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_base(folder / "base")
    run = make_tiny_run(folder / "run", base)
    export = export_run(run, ["F16", "Q8_0", "Q4_K_M"], folder / "bundle")
    return Tiny(base, run, folder / "gguf", folder / "bundle", export, load_template("chatml"), tiny_samples())


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [open_bundle(make_tiny_bundle(folder / name, fill)) for fill, name in enumerate(("one", "two", "three"))]
