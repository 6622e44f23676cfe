"""Pretrain the starter base: a small Llama from scratch, on conversations over many random sites.

Optimizer: Muon for the matrices inside the layers and AdamW for the rest, which needs fewer tokens than AdamW
alone (finetune/muon.py). The rate warms up, stays, and falls to zero at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field, ValidationError

from devices.yaml_file import Strict, plain_values, read_yaml
from edge_agent.wire import Message, contract_of, load_template
from finetune.conversations import make_row
from finetune.model_card import model_card
from finetune.random_sites import random_site
from finetune.rows import IGNORED, Row, encode
from finetune.run_folder import tool_versions
from finetune.starter_model import CONTEXT_TOKENS, starter_config, train_tokenizer

TEMPLATE = "chatml"
RECIPES_FOLDER = Path(__file__).parent / "pretrain_recipes"
POOL_ROWS = 96  # drawn at a time, to be sorted by length
Encoded = tuple[list[int], list[int]]  # token ids, labels


class PretrainRecipe(Strict):
    """What to pretrain; finetune/pretrain_recipes/starter.yaml says what each key means."""

    schema_: Literal["pretrain/v1"] = Field(alias="schema")
    out: str = Field(min_length=1)
    seed: int = Field(default=1, ge=0)
    layers: int = Field(default=6, ge=1, le=64)
    steps: int = Field(ge=1)
    step_tokens: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=40, ge=0)
    decay_share: float = Field(default=0.4, ge=0, le=1)
    small_sites_share: float = Field(default=0.35, ge=0, le=1)
    prompt_weight: float = Field(default=0.1, ge=0, lt=1)
    tokenizer_rows: int = Field(default=3000, ge=1)


def load_pretrain_recipe(name_or_path: str | Path) -> PretrainRecipe:
    """Load a recipe by shipped name or path.

    Raises:
        UsageError: no such recipe, or a wrong key or value; the message has file and line.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES_FOLDER / f"{name_or_path}.yaml"
    source = read_yaml(path, "recipe")
    try:
        return PretrainRecipe.model_validate(plain_values(source.root))
    except ValidationError as error:
        raise source.explain((), error, PretrainRecipe) from error


def random_rows(seed: str, progress: Callable[[], float], small_until: float) -> Iterator[Row]:
    """Yield conversations, each on a site of its own; early ones are on small sites and short."""
    rng = Random(seed)
    template = load_template(TEMPLATE)
    while True:
        is_small = progress() < small_until
        site = random_site(rng, devices=(3, 6) if is_small else (4, 14))
        system = Message("system", contract_of(site, template).system_text)
        yield make_row(site, system, rng, exchanges=(1, 3) if is_small else (1, 5))


def pretrain(recipe: PretrainRecipe, out: Path, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Train tokenizer and model from scratch and write them to `out` in bfloat16.

    Returns:
        The figures of the run, which are also in `out`/training.json.
    """
    import torch
    from transformers import LlamaForCausalLM

    started_s = time.monotonic()
    torch.manual_seed(recipe.seed)
    template = load_template(TEMPLATE)
    texts = random_rows(f"tokenizer-{recipe.seed}", lambda: 1.0, 0.0)
    tokenizer = train_tokenizer(
        template.render(next(texts).messages, add_generation_prompt=False) for _ in range(recipe.tokenizer_rows)
    )
    model = LlamaForCausalLM(starter_config(len(tokenizer), recipe.layers))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report(f"starter: {parameters / 1e6:.2f} million parameters, {len(tokenizer)} tokens, on {device}")
    step = 0
    rows = random_rows(f"rows-{recipe.seed}", lambda: step / recipe.steps, recipe.small_sites_share)
    encoded = (encode(row.messages, template, tokenizer) for row in rows)
    steps = batches(encoded, recipe.step_tokens, Random(recipe.seed))
    optimizers = _optimizers(model, recipe.learning_rate)
    seen_tokens, losses = 0, []
    for step in range(recipe.steps):
        batch = next(steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate_share(step, recipe)
        loss, trained_loss = _weighted_loss(model, batch, recipe.prompt_weight, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen_tokens += sum(len(ids) for ids, _ in batch)
        losses.append(trained_loss)
        if step % 20 == 19 or step + 1 == recipe.steps:
            seconds = time.monotonic() - started_s
            mean = sum(losses[-20:]) / len(losses[-20:])
            report(
                f"step {step + 1}/{recipe.steps}  assistant loss {mean:.4f}  "
                f"{seen_tokens / seconds:,.0f} tokens/s  {seconds / 60:.1f} min"
            )
        if step % 200 == 199:
            _save(model, tokenizer, out)
    _save(model, tokenizer, out)
    figures = {
        "recipe": recipe.model_dump(by_alias=True),
        "parameters": parameters,
        "vocabulary": len(tokenizer),
        "tokens": seen_tokens,
        "seconds": round(time.monotonic() - started_s),
        "device": device,
        "machine": machine_name(device),
        "versions": tool_versions(),
        "assistant_loss": round(sum(losses[-50:]) / len(losses[-50:]), 4),
    }
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(figures), encoding="utf-8")
    return figures


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


def _optimizers(model: Any, learning_rate: float) -> list[Any]:
    import torch

    from finetune.muon import Muon

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name]
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return [
        Muon(matrices, lr=learning_rate),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def batches(encoded: Iterator[Encoded], step_tokens: int, rng: Random) -> Iterator[list[Encoded]]:
    """Yield batches of rows of about one length, so that little is padding.

    Args:
        encoded: token ids and labels of rows; rows longer than the context are left out.
        step_tokens: tokens of a batch with its padding, at most; a longer row comes alone.
        rng: mixes the batches of a pool.
    """
    while True:
        pool = sorted((row for row in islice(encoded, POOL_ROWS) if len(row[0]) <= CONTEXT_TOKENS), key=_length)
        cut: list[list[Encoded]] = [[]]
        for row in pool:
            if cut[-1] and (len(cut[-1]) + 1) * len(row[0]) > step_tokens:
                cut.append([])
            cut[-1].append(row)
        rng.shuffle(cut)
        yield from cut


def _length(row: Encoded) -> int:
    return len(row[0])


def _weighted_loss(model: Any, batch: list[Encoded], prompt_weight: float, device: str) -> tuple[Any, float]:
    """Return the loss to minimize and the assistant's mean loss.

    Only a quarter of the prompt's tokens is drawn, with four times the weight: the output layer is a quarter of
    the work. Padding is on the right, where causal attention never looks, so no attention mask is needed.
    """
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(ids) for ids, _ in batch)
    token_ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for number, (ids, labels) in enumerate(batch):
        token_ids[number, : len(ids)] = torch.tensor(ids)
        is_trained = torch.tensor(labels) != IGNORED
        is_drawn = torch.rand(len(ids)) < 0.25
        weights[number, : len(ids)] = torch.where(is_trained, 1.0, is_drawn * 4 * prompt_weight)
    token_ids, weights = token_ids.to(device), weights.to(device)
    hidden = model.model(input_ids=token_ids).last_hidden_state[:, :-1]
    targets, target_weights = token_ids[:, 1:], weights[:, 1:]
    chosen = target_weights > 0
    losses = cross_entropy(model.lm_head(hidden[chosen]).float(), targets[chosen], reduction="none")
    chosen_weights = target_weights[chosen]
    trained = losses[chosen_weights == 1.0].mean().item()
    return (losses * chosen_weights).sum() / chosen_weights.sum(), trained


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    import copy

    import torch

    out.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to("cpu", torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
