"""Pretrain the starter base: a small Llama from scratch, on conversations over many random sites.

First drills in looking things up (data/drills.py), then conversations; those that start in one state are learnt
together, as a tree (training/prefix_tree.py). Optimizer: Muon for the matrices inside the layers and AdamW for the
rest, which needs fewer tokens than AdamW alone (training/muon.py), on float32 weights; the passes run in bfloat16 where
the machine has units for it. The rate warms up, stays, and falls to zero.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field

from devices.yaml_file import Strict, read_model, shipped_path
from edge_agent.progress import ProgressBar
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import Stage, make_branches, make_row
from finetune.data.random_sites import random_site, with_near_names
from finetune.data.rows import Row, encode
from finetune.pretraining.model_card import model_card
from finetune.pretraining.starter_model import look_back, starter_config, train_tokenizer
from finetune.training.processor import keep_freed_memory, prepare_processor
from finetune.training.quantized_base import choose_device, choose_dtype
from finetune.training.run_folder import tool_versions

TEMPLATE = "chatml"
RECIPES_FOLDER = Path(__file__).parents[1] / "pretrain_recipes"
SLOTS, SLOT_TOKENS = 8, 192  # of a tree of single exchanges, which share system text and state
LONG_SLOTS, LONG_SLOT_TOKENS = 3, 576  # of a tree of longer conversations, which share the system text only
LONG_EXCHANGES = (2, 3)
WHICH_ONE = 0.15  # weight of questions which device is meant: no site that ships has been trained with them
DRILLS = ((32, 64), (24, 128))  # rows and tokens, in the first half of the drills and in the second


class PretrainRecipe(Strict):
    """What to pretrain; finetune/pretrain_recipes/starter.yaml says what each key means."""

    schema_: Literal["pretrain/v1"] = Field(alias="schema")
    out: str = Field(min_length=1)
    seed: int = Field(default=1, ge=0)
    layers: int = Field(default=6, ge=1, le=64)
    steps: int = Field(ge=1)
    step_trees: int = Field(ge=1)
    drill_steps: int = Field(default=0, ge=0)
    long_share: float = Field(default=0.15, ge=0, le=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=40, ge=0)
    decay_share: float = Field(default=0.4, ge=0, le=1)
    small_sites_share: float = Field(default=0.35, ge=0, le=1)
    prompt_weight: float = Field(default=0.1, ge=0, lt=1)
    tokenizer_rows: int = Field(default=3000, ge=1)
    workers: int = Field(default=1, ge=1, le=64)
    is_compiled: bool = True


def load_pretrain_recipe(name_or_path: str | Path) -> PretrainRecipe:
    """Load a recipe by shipped name or path.

    Raises:
        UsageError: no such recipe, or a wrong key or value; the message has file and line.
    """
    return read_model(shipped_path(name_or_path, RECIPES_FOLDER, "recipe"), PretrainRecipe, "recipe")


def random_stage(rng: Random, *, is_small: bool = False) -> Stage:
    """Return a random site, ready for conversations."""
    site = with_near_names(random_site(rng, devices=(3, 6) if is_small else (4, 16)), rng)
    return Stage.of(site, {"which_one": WHICH_ONE})


def random_rows(seed: str) -> Iterator[Row]:
    """Yield conversations, each on a site of its own."""
    rng = Random(seed)
    while True:
        yield make_row(random_stage(rng), rng)


def random_trees(recipe: PretrainRecipe, tokenizer: Any, worker: int = 0) -> Iterator[Any]:
    """Yield a worker's share of the trees that the recipe needs, each of a site of its own, small sites first."""
    from finetune.training.prefix_tree import build_tree

    rng = Random(f"trees-{recipe.seed}" + (f"-{worker}" if worker else ""))
    template = load_template(TEMPLATE)
    wanted = math.ceil(recipe.steps * recipe.step_trees / recipe.workers)
    made = 0
    while made < wanted:
        stage = random_stage(rng, is_small=made < wanted * recipe.small_sites_share)
        if rng.random() < recipe.long_share:
            rows = [make_row(stage, rng, LONG_EXCHANGES) for _ in range(2 * LONG_SLOTS)]
            size = LONG_SLOTS, LONG_SLOT_TOKENS
        else:
            rows = make_branches(stage, rng, 3 * SLOTS)
            size = SLOTS, SLOT_TOKENS
        tree = build_tree([encode(row.messages, template, tokenizer) for row in rows], *size)
        if tree is not None:
            yield tree
            made += 1


def pretrain(recipe: PretrainRecipe, out: Path, *, progress: ProgressBar) -> dict[str, Any]:
    """Train tokenizer and model from scratch and write them to `out` in bfloat16.

    Returns:
        The figures of the run, which are also in `out`/training.json.
    """
    import torch

    from finetune.training.prefix_tree import ATTENTION, tree_losses

    started_s = time.monotonic()
    prepare_processor()
    keep_freed_memory(True)
    torch.manual_seed(recipe.seed)
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    tokenizer, model = _make_start(recipe)
    learner = _Learner(model, recipe, device, dtype)
    millions = learner.parameters / 1e6
    progress.note(f"starter: {millions:.2f} million parameters, {len(tokenizer)} tokens, on {device} in {dtype}")
    trees = iter(_in_background(recipe, tokenizer))
    _drill(learner, recipe, len(tokenizer), device, progress)
    model.config._attn_implementation = ATTENTION
    body = torch.compile(model.model, dynamic=True) if recipe.is_compiled else model.model
    seen_tokens, seen_branches, losses = 0, 0, []
    for step in range(recipe.steps):
        for _ in range(recipe.step_trees):
            tree = next(trees).to(device)
            trained, trunk = tree_losses(body, model.lm_head, tree)
            learner.learn((trained + recipe.prompt_weight * trunk) / recipe.step_trees)
            losses.append(trained.item())
            seen_tokens += tree.tokens
            seen_branches += tree.branches
        learner.take_step(recipe.learning_rate * rate_share(step, recipe))
        if step % 20 == 19 or step + 1 == recipe.steps:
            seconds = time.monotonic() - started_s
            recent = losses[-20 * recipe.step_trees :]
            text = f"assistant loss {sum(recent) / len(recent):.4f}, {seen_tokens / seconds:,.0f} tokens/s"
            progress.show(step + 1, recipe.steps, f"step {step + 1}/{recipe.steps}: {text}")
        if step % 200 == 199:
            _save(model, tokenizer, out)
    _save(model, tokenizer, out)
    last = losses[-50 * recipe.step_trees :]
    figures = {
        "recipe": recipe.model_dump(by_alias=True),
        "parameters": learner.parameters,
        "vocabulary": len(tokenizer),
        "tokens": seen_tokens,
        "branches": seen_branches,
        "seconds": round(time.monotonic() - started_s),
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "machine": machine_name(device),
        "versions": tool_versions(),
        "assistant_loss": round(sum(last) / len(last), 4),
    }
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(figures), encoding="utf-8")
    return figures


def _make_start(recipe: PretrainRecipe) -> tuple[Any, Any]:
    from transformers import LlamaForCausalLM

    template, texts = load_template(TEMPLATE), random_rows(f"tokenizer-{recipe.seed}")
    tokenizer = train_tokenizer(
        template.render(next(texts).messages, add_generation_prompt=False) for _ in range(recipe.tokenizer_rows)
    )
    model = LlamaForCausalLM(starter_config(len(tokenizer), recipe.layers))
    look_back(model, Random(f"look-back-{recipe.seed}"))
    return tokenizer, model


class _Learner:
    """A model in the dtype of its passes, and its float32 weights, where small changes are not lost."""

    def __init__(self, model: Any, recipe: PretrainRecipe, device: str, dtype: Any) -> None:
        import torch

        from finetune.training.muon import Muon

        model.to(device)
        self._model = model
        self._masters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
        self.parameters = sum(master.numel() for master in self._masters)
        matrices: list[Any] = []
        rest: list[Any] = []
        for (name, _), master in zip(model.named_parameters(), self._masters, strict=True):
            (matrices if master.ndim == 2 and "layers." in name else rest).append(master)
        self._optimizers = [
            Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, step_dtype=dtype),
            torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        model.to(dtype)

    def learn(self, loss: Any) -> None:
        """Add the gradients of a loss."""
        loss.backward()
        for parameter, master in zip(self._model.parameters(), self._masters, strict=True):
            gradient = parameter.grad.to(master.dtype)
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def take_step(self, rate: float) -> None:
        """Change the weights by the gradients since the last step."""
        import torch

        torch.nn.utils.clip_grad_norm_(self._masters, 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for parameter, master in zip(self._model.parameters(), self._masters, strict=True):
                parameter.copy_(master)

    def loss_of(self, token_ids: Any, labels: Any) -> Any:
        """Return the mean cross-entropy of rows; int64 (row, position), labels as make_drills has them."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(self._model(token_ids, use_cache=False).logits.flatten(0, 1).float(), labels.flatten())


def _drill(learner: _Learner, recipe: PretrainRecipe, vocabulary: int, device: str, progress: ProgressBar) -> None:
    from finetune.data.drills import make_drills

    rng = Random(f"drills-{recipe.seed}")
    for step in range(recipe.drill_steps):
        rows, length = DRILLS[2 * step // recipe.drill_steps]
        loss = learner.loss_of(*(part.to(device) for part in make_drills(rng, vocabulary, rows, length)))
        learner.learn(loss)
        learner.take_step(recipe.learning_rate * min(1.0, (step + 1) / max(1, recipe.warmup_steps)))
        if step % 20 == 19 or step + 1 == recipe.drill_steps:
            text = f"drill {step + 1}/{recipe.drill_steps}: loss {loss.item():.4f}"
            progress.show(step + 1, recipe.drill_steps, text)


def _in_background(recipe: PretrainRecipe, tokenizer: Any) -> Any:
    """Return the recipe's trees, made in processes of their own while the model learns."""
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Trees(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return random_trees(recipe, tokenizer, get_worker_info().id)

    return DataLoader(Trees(), batch_size=None, num_workers=recipe.workers, prefetch_factor=16)


def machine_name(device: str) -> str:
    """Return what the run computed on: the GPU's name, or the processor's and how many cores it may use."""
    import os
    import platform

    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return f"{platform.machine()}, {os.cpu_count()} cores"


def rate_share(step: int, recipe: PretrainRecipe) -> float:
    """Return the learning rate at a step as a share of its highest."""
    decay_steps = max(1, int(recipe.steps * recipe.decay_share))
    return min(1.0, (step + 1) / max(1, recipe.warmup_steps), (recipe.steps - step) / decay_steps)


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    import copy

    import torch

    out.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to("cpu", torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
