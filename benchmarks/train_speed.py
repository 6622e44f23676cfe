"""Training speed and memory of our recipe against a plain trl script with the same settings, side by side in one run.

    python benchmarks/train_speed.py --rows 640 --out benchmarks/results/train-speed.json

Both train the same LoRA on the same NF4 base, with the same optimizer, rows, labels and rows a step. The plain script
is what trl's documentation shows: rows in random order, padded to the longest of a batch, every position's logits
computed. Ours puts rows that start alike into one batch, evaluates what they share once, and computes the logits of
trained tokens only. Speed counts the rows' own tokens, not padding, so that it says how fast the same data is learnt.
Each runs in a process of its own, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import in_fresh_process
from devices.site.site import load_site
from edge_agent.engine.machine import this_machine
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from finetune.data.generator import generate_rows
from finetune.data.rows import write_rows
from finetune.recipe import Recipe, load_recipe
from finetune.training.processor import keep_freed_memory, prepare_processor
from finetune.training.run_folder import tool_versions
from finetune.training.train import train_run


def ours(recipe: Recipe) -> dict[str, float]:
    """Train with the project's own trainer."""
    from finetune.training.adapter_trainer import used_memory_mib

    facts = train_run(recipe)
    return {"tokens_per_s": facts.tokens_per_s, "loss": facts.losses[-1][1], "memory_mib": used_memory_mib()}


def plain(recipe: Recipe, *, attention: str = "sdpa", uses_liger: bool = False) -> dict[str, float]:
    """Train with trl's SFTTrainer as its documentation has it, on the same rows and labels."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from finetune.data.encoded_rows import encode_rows
    from finetune.training.adapter_trainer import used_memory_mib
    from finetune.training.quantized_base import (
        add_adapter,
        choose_device,
        choose_dtype,
        choose_optimizer,
        load_base,
        load_tokenizer,
    )

    training = recipe.training
    device = choose_device(recipe.device)
    dtype = choose_dtype(recipe.compute_dtype, device)
    if device == "cpu":
        prepare_processor()
        keep_freed_memory(True)
    tokenizer = load_tokenizer(recipe)
    contract = contract_of(load_site(recipe.site), load_template(recipe.template))
    rows = encode_rows(Path(recipe.data), contract, tokenizer, training.max_tokens)
    arguments = SFTConfig(
        output_dir=recipe.out,
        use_cpu=device == "cpu",
        bf16=str(dtype) == "torch.bfloat16",
        fp16=str(dtype) == "torch.float16",
        per_device_train_batch_size=training.batch_rows,
        gradient_accumulation_steps=training.accumulate,
        num_train_epochs=training.epochs or 1.0,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps,
        optim=choose_optimizer(training.optimizer, device)[0],
        gradient_checkpointing=training.gradient_checkpointing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        seed=recipe.seed,
        use_liger_kernel=uses_liger,
    )
    base = load_base(recipe, device, dtype)
    base.set_attn_implementation(attention)
    trainer = SFTTrainer(
        model=add_adapter(base, recipe.lora),
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": list(rows.token_ids), "labels": list(rows.labels)}),
        processing_class=tokenizer,
    )
    started_s = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started_s
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {
        "tokens_per_s": round(rows.tokens * (training.epochs or 1.0) / seconds, 1),
        "loss": losses[-1],
        "memory_mib": used_memory_mib(),
    }


def main() -> int:
    """Run the command; exit code 5 if ours learns the data less than twice as fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="home", help="name or file; its base and settings are used")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2, help="of both, in turns")
    parser.add_argument("--goal", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sides: dict[str, Callable[[Recipe], dict[str, float]]] = {"ours": ours, "plain": plain}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "train.jsonl"
        for number in range(arguments.rounds):
            for name, train in sides.items():
                out = Path(folder) / f"{name}-{number}"
                recipe = load_recipe(arguments.recipe, [f"data={data}", f"out={out}", "training.epochs=1"])
                if not data.exists():
                    write_rows(data, generate_rows(load_site(recipe.site), arguments.rows, recipe.seed))
                found[name].append(in_fresh_process(train, recipe))
                print(name, found[name][-1], file=sys.stderr, flush=True)
    speeds = {name: statistics.median(one["tokens_per_s"] for one in runs) for name, runs in found.items()}
    ratio = round(speeds["ours"] / speeds["plain"], 2)
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": this_machine(),
        "cores": os.cpu_count(),
        "versions": tool_versions(),
        "rows": arguments.rows,
        "runs": found,
        "tokens_per_s": speeds,
        "ratio": ratio,
        "goal": arguments.goal,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"ours {speeds['ours']:,.0f} tokens/s, plain {speeds['plain']:,.0f}: {ratio} times")
    return 0 if ratio >= arguments.goal else 5


if __name__ == "__main__":
    sys.exit(main())
