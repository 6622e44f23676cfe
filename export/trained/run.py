"""What `edgewright train` left behind, as an export reads it: its folder, its limits, where it came from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from devices.durable import sha256_of
from devices.errors import UsageError
from devices.site.site import load_site
from devices.yaml_file import first_problem, parse_value, plain_values, read_yaml
from edge_agent.base_models import base_path
from edge_agent.engine.machine import installed_versions
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.run_facts import RunFacts, read_run_facts
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import contract_of, require_contract

TOOLS_USED = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "gguf", "llama-cpp-python", "numpy")
_BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Run:
    """A run's folder: what it was trained from, and the files it holds.

    `facts` is run.json, `recipe` the values of recipe.yaml, as they stand in it.
    """

    path: Path
    facts: RunFacts
    recipe: dict[str, Any]
    base: Path
    template: ChatTemplate

    @property
    def adapter(self) -> Path:
        """The LoRA adapter, as peft saves it."""
        return self.path / "adapter"

    @property
    def site_path(self) -> Path:
        """The site the run was trained for."""
        return self.path / "site.yaml"

    @property
    def sample_path(self) -> Path:
        """Some of its training conversations."""
        return self.path / "sample.jsonl"

    @property
    def metadata(self) -> dict[str, str]:
        """What a GGUF file says of itself, so that it is never run under another contract."""
        any_site = {"any_site": self.facts.any_site} if self.facts.any_site else {}
        return {"contract": self.facts.contract, "template": self.template.name, "site": self.facts.site} | any_site

    @property
    def nf4_dtype(self) -> str:
        """The type in which it loaded its 4-bit base; "" if its base was not in 4 bits."""
        return self.facts.dtype if self.recipe.get("quantization") == "nf4" else ""


def read_run(path: Path, base: Path | None = None) -> Run:
    """Return a run's folder, checked.

    Args:
        path: the folder that `edgewright train` made.
        base: the base model's folder, if it is no longer where run.json says.

    Raises:
        UsageError: a file is missing or unreadable; the message names it.
        ContractChanged: template, system prompt or tools are no longer what the run was trained with.
    """
    facts = read_run_facts(path)
    folder = base or Path(base_path(facts.base))
    if not folder.is_dir():
        raise UsageError(f"the base model {folder} is not there", hint="give its folder with --base")
    template = load_template(facts.template)
    recipe = plain_values(read_yaml(path / "recipe.yaml", "recipe").root)
    if not isinstance(recipe, dict):
        raise UsageError(f"{path / 'recipe.yaml'}: not a mapping")
    run = Run(path, facts, recipe, folder, template)
    require_contract(facts.contract, contract_of(load_site(run.site_path), template).digest, f"run {path.name}")
    return run


def gate_limits(run: Run, overrides: Sequence[str] = ()) -> GateLimits:
    """Return the limits in a run's recipe, with NAME=VALUE in their place.

    Raises:
        UsageError: no such limit, or a value that it cannot have.
    """
    values: dict[str, Any] = dict(run.recipe.get("gates") or {})
    for text in overrides:
        name, equals, written = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--gate {text}: not NAME=VALUE", hint=f"names: {', '.join(GateLimits.model_fields)}")
        values[name] = parse_value(written, f"--gate {text}")
    try:
        return GateLimits.model_validate(values)
    except ValidationError as error:
        location, message, hint = first_problem(error, GateLimits)
        hint = hint or f"names: {', '.join(GateLimits.model_fields)}"
        raise UsageError(f"gates.{'.'.join(map(str, location))}: {message}", hint=hint) from error


def provenance_of(run: Run) -> dict[str, Any]:
    """Return what an export is made from: hashes of base, adapter, data and template, the recipe, versions of tools."""
    base_files = sorted({path for pattern in _BASE_FILES for path in run.base.glob(pattern)})
    return {
        "schema": "export/v1",
        "run": asdict(run.facts),
        "contract": run.facts.contract,
        "base": {"path": str(run.base), "sha256": {path.name: sha256_of(path) for path in base_files}},
        "adapter": {"sha256": {path.name: sha256_of(path) for path in sorted(run.adapter.glob("adapter_*"))}},
        "data": asdict(run.facts.data),
        "recipe": (run.path / "recipe.yaml").read_text(encoding="utf-8"),
        "versions": installed_versions(TOOLS_USED),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
