"""QLoRA of real shapes with random weights and real vocabularies: speed, memory, and how near to the card's own speed.

    python -m benchmarks.train_shapes --shape llama-3.2-3b --shape llama-3-8b --vocabularies VOCABULARIES

Each variant trains one epoch on the same conversations of the home in a process of its own: ours as the recipes have
it, packed to 2,048 tokens, and packed with checkpointing (2 rows, 4 of them to a step, as for a card of 24 GB); and the
plain script of train_speed.py with each kind of attention and, where it is installed, with liger-kernel. Speed counts
the rows' own tokens. `share_of_matmul` is what the layers' matrices need for that, 4 operations a weight and token,
against a large bfloat16 multiplication timed in the same run; it leaves out the head, attention, and what checkpointing
does twice, and is not said where a prefix is evaluated once for several rows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import in_fresh_process, machine_with_gpu, save
from benchmarks.train_speed import ours, plain
from devices.errors import EdgeError
from devices.site.site import load_site
from finetune.data.generator import generate_rows
from finetune.data.rows import write_rows
from finetune.recipe import SEVEN_PROJECTIONS, Recipe, load_recipe
from finetune.training.run_folder import tool_versions
from tests.families import FAMILIES, FUSED, make_base

# Source: the models' config.json. The family says which configuration, vocabulary, template and positions.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("llama-3.2", {}),
    "tiny-phi-3": ("phi-3", {}),
    "llama-3.2-3b": ("llama-3.2", {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                                   "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128}),
    "phi-3-mini": ("phi-3", {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
                             "num_attention_heads": 32, "num_key_value_heads": 32}),
    "mistral-7b": ("mistral", {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                               "num_attention_heads": 32, "num_key_value_heads": 8}),
    "llama-3-8b": ("llama-3.2", {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                                 "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}),
}  # fmt: skip
OURS = {
    "ours": ["training.share_prefix=true"],
    "ours, packed": ["training.share_prefix=false", "training.packing=true"],
    "ours, packed, checkpointed": ["training.share_prefix=false", "training.packing=true", "training.batch_rows=2",
                                   "training.accumulate=4", "training.gradient_checkpointing=true"],
}  # fmt: skip
PLAIN = ["training.share_prefix=false"]
MATMUL_SIZE, MATMUL_ROUNDS = 8192, 10


def variants() -> dict[str, tuple[Callable[..., dict[str, float]], list[str], dict[str, Any]]]:
    """Return what is compared: function, recipe overrides, further arguments."""
    found: dict[str, tuple[Callable[..., dict[str, float]], list[str], dict[str, Any]]] = {
        name: (ours, overrides, {}) for name, overrides in OURS.items()
    }
    kinds = ["eager", "sdpa", *(["flash_attention_2"] if importlib.util.find_spec("flash_attn") else [])]
    for kind in kinds:
        found[f"plain, {kind}"] = (plain, PLAIN, {"attention": kind})
    found["plain, sdpa, checkpointed"] = (plain, [*PLAIN, "training.gradient_checkpointing=true"], {})
    if importlib.util.find_spec("liger_kernel"):
        found["plain, sdpa, liger"] = (plain, PLAIN, {"uses_liger": True})
    return found


def train(work: Callable[..., dict[str, float]], recipe: Recipe, more: dict[str, Any]) -> dict[str, Any]:
    """Train in this process; a lack of memory is a result too."""
    import torch

    try:
        found: dict[str, Any] = work(recipe, **more)
    except (EdgeError, RuntimeError) as error:  # memory, for instance
        found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    if torch.cuda.is_available():
        found["reserved_mib"] = torch.cuda.max_memory_reserved() / 2**20
    return found


def make(family: str, shape: dict[str, Any], vocabularies: Path, folder: Path) -> dict[str, int]:
    """Save a base with random weights; return how many weights its layers' matrices have, and all."""
    import torch
    from safetensors import safe_open

    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        make_base(family, vocabularies, folder, shape)
    counts = {"layers": 0, "all": 0}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                sides = file.get_slice(name).get_shape()
                counts["all"] += math.prod(sides)
                counts["layers"] += math.prod(sides) if "layers" in name and len(sides) == 2 else 0
    return counts


def matmul_flops() -> float:
    """Return operations a second of a large bfloat16 multiplication."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = MATMUL_SIZE if device == "cuda" else 1024
    one = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    best = 0.0
    for _ in range(MATMUL_ROUNDS):
        started_s = time.perf_counter()
        float((one @ one)[0, 0])  # a GPU's work is over when a number of it is read
        best = max(best, 2 * size**3 / (time.perf_counter() - started_s))
    return best


def measure(name: str, given: argparse.Namespace, folder: Path, flops: float) -> dict[str, Any]:
    """Return the figures of all variants on one shape."""
    family, shape = SHAPES[name]
    counts = in_fresh_process(make, family, shape, given.vocabularies, folder / "base")
    targets = f"lora.targets=[{','.join(FUSED if family.startswith('phi-3') else SEVEN_PROJECTIONS)}]"
    found: dict[str, Any] = {}
    for label, (work, overrides, more) in variants().items():
        out = folder / label.replace(", ", "-").replace(" ", "-")
        common = [f"base={folder}/base", f"template={FAMILIES[family][2]}", targets, f"data={folder}/train.jsonl",
                  f"out={out}", "training.epochs=1", "training.batch_rows=4", "training.warmup_steps=2",
                  "compute_dtype=bfloat16"]  # fmt: skip
        recipe = load_recipe("home", [*common, *overrides])
        if not Path(recipe.data).exists():
            write_rows(Path(recipe.data), generate_rows(load_site("home"), given.rows, recipe.seed))
        one = in_fresh_process(train, work, recipe, more)
        if "tokens_per_s" in one and label != "ours":
            one["share_of_matmul"] = round(4 * counts["layers"] * one["tokens_per_s"] / flops, 4)
        found[label] = one
        print(name, label, one, file=sys.stderr, flush=True)
    if given.keep:
        shutil.move(folder, given.keep / name)
    return {"weights": counts, "variants": found}


def main() -> int:
    """Run the command; exit code 5 if the 8B shape needs 24 GB or more where it is checkpointed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=list(SHAPES), required=True)
    parser.add_argument("--vocabularies", type=Path, required=True, help="folder with llama.cpp's ggml-vocab-*.gguf")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where the bases go")
    parser.add_argument("--keep", type=Path, help="where bases and runs stay, for benchmarks.export_gates")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    flops, shapes = in_fresh_process(matmul_flops), {}
    for name in given.shape:
        with tempfile.TemporaryDirectory(dir=given.keep or given.scratch, ignore_cleanup_errors=True) as text:
            shapes[name] = measure(name, given, Path(text) / "work", flops)
    result = {
        "command": "python -m benchmarks.train_shapes " + " ".join(f"--shape {name}" for name in given.shape),
        "machine": machine_with_gpu(),
        "versions": tool_versions(),
        "rows": given.rows,
        "matmul_flops": round(flops),
        "shapes": shapes,
    }
    save(result, given.out)
    print(json.dumps(shapes, indent=1))
    large = shapes.get("llama-3-8b", {}).get("variants", {}).get("ours, packed, checkpointed", {})
    return 5 if large.get("reserved_mib", 0) * 2**20 >= 24e9 or "failed" in large else 0


if __name__ == "__main__":
    sys.exit(main())
