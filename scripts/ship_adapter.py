#!/usr/bin/env python3
"""Copy a finished run of a shipped recipe into finetune/adapters, where `start_from` and `export` find it.

    python scripts/ship_adapter.py runs/any_smollm2 any_smollm2
    python scripts/ship_adapter.py runs/home_smollm2 home_smollm2 any_smollm2

A third name has the mean of the run's weights and that adapter's: tuned on one site from it, the mean keeps more of
what the adapter could do elsewhere. Weights become float16, which halves the file; what is measured and stated of an
adapter is measured on that copy.
The card (README.md) is written by hand.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from safetensors.torch import load_file, save_file

from edge_agent.run_facts import read_run_facts
from finetune.recipe import load_recipe

WEIGHTS = "adapter/adapter_model.safetensors"
SHIPPED_ROWS = 4  # of the run's sample, which export's gates read


def ship(run: Path, name: str, other: str = "") -> Path:
    """Write finetune/adapters/NAME, of the run's weights or their mean with another adapter's, and return it."""
    shipped, used = load_recipe(name), load_recipe(run / "recipe.yaml")
    facts = read_run_facts(run)
    out = ROOT / "finetune" / "adapters" / name
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    recipe = used.model_copy(update={key: getattr(shipped, key) for key in ("data", "out", "base", "start_from")})
    (out / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    stated = replace(facts, base=shipped.base, data=replace(facts.data, path=shipped.data))
    (out / "run.json").write_text(json.dumps(asdict(stated), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(run / "site.yaml", out / "site.yaml")
    with (run / "sample.jsonl").open(encoding="utf-8") as rows:
        (out / "sample.jsonl").write_text("".join(row for row, _ in zip(rows, range(SHIPPED_ROWS), strict=False)))
    config = json.loads((run / "adapter" / "adapter_config.json").read_bytes())
    config["base_model_name_or_path"] = shipped.base
    (out / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    made = load_file(run / WEIGHTS)
    if other:
        others = load_file(ROOT / "finetune" / "adapters" / other / WEIGHTS)
        made = {key: (weight.float() + others[key].float()) / 2 for key, weight in made.items()}
    weights = {key: weight.half().contiguous() for key, weight in made.items()}
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    return out


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: ship_adapter.py RUN NAME [OTHER]")
    print(ship(Path(sys.argv[1]), *sys.argv[2:]))
