"""Direct preference optimization (DPO) through trl, on pairs that come encoded.

What trl 1.16 would do by itself and must not: render pairs, add end-of-turn tokens, and cast the adapter of a quantized
base to bfloat16. Source: trl dpo_trainer.py; DPO: arXiv 2305.18290.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import set_seed
from trl import DPOConfig, DPOTrainer

from edge_agent.progress import ProgressBar
from finetune.recipe import Preference, Recipe
from finetune.training.adapter_trainer import RunTrainer, common_arguments
from finetune.training.memory_plan import most_tokens
from finetune.training.prefix_loss import cut_rows
from finetune.training.quantized_base import Machine, is_sharded, load_base

SHARE = "edgewright_share"  # of a batch's pairs that a part of it has
REFERENCE = "ref"  # trl's name for the copy of the adapter that training starts from


def build_preference_trainer(
    recipe: Recipe,
    preference: Preference,
    machine: Machine,
    tokenizer: Any,
    pairs: list[dict[str, list[int]]],
    progress: ProgressBar,
) -> PreferenceTrainer:
    """Return a trainer ready to train: pairs, frozen base, and the adapter of an earlier run, twice."""
    adapter = Path(preference.start_from) / "adapter"
    set_seed(recipe.seed)
    base = load_base(recipe, machine.device, machine.dtype)
    trainer = PreferenceTrainer(
        model=PeftModel.from_pretrained(base, adapter, is_trainable=True),
        args=DPOConfig(**common_arguments(recipe, machine), beta=preference.beta),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    weights = load_file(adapter / "adapter_model.safetensors")
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.float32)
    for copy in ("default", REFERENCE):
        set_peft_model_state_dict(trainer.model, weights, adapter_name=copy)
    trainer.set_up(recipe, progress)
    return trainer


class PreferenceTrainer(RunTrainer, DPOTrainer):
    """trl's DPO trainer, on pairs of token ids."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return DPO's loss, and count the tokens seen; of a part of a batch, its share of the batch's mean."""
        self.seen_tokens += int(inputs["attention_mask"].sum())
        share = inputs.pop(SHARE)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch) * share

    def _parts(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a batch's pairs in parts; its first half of rows are the preferred replies, its second the others."""
        preferred, other = batch["attention_mask"].sum(1).chunk(2)
        lengths = torch.maximum(preferred, other).tolist()
        parts = [range(len(lengths))] if is_sharded() else cut_rows(lengths, 0, most_tokens(self.recipe) // 2)
        found: list[dict[str, Any]] = []
        for part in parts:
            rows = [*part, *(len(lengths) + place for place in part)]
            longest = max(lengths[place] for place in part)
            found.append(
                {key: values[rows, :longest] for key, values in batch.items()} | {SHARE: len(part) / len(lengths)}
            )
        return found

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset
