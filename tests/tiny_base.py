"""A tiny base model and a tiny run for tests: random weights, real files. Used by every package's tests."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from devices.simulation.world import World
from devices.site.site import SITES_FOLDER, load_site
from devices.site.tools import ToolCall
from edge_agent.run_facts import RUN_FILE, DataFacts, RunFacts
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message, user_message
from export.trained.samples import Sample, sample_of
from finetune.data.rows import Row, write_rows

TINY_VOCABULARY = 512
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Random weights end no reply, and nearly tie; the processor decides which way (Q4_K_M agreed in 0.49 on one machine and
# in more than 0.5 on others).
TINY_RECIPE = "schema: recipe/v1\ngates: {call_kl: 1.0, call_top1: 0.25, endings: 0.0}\n"
REPLIES = (
    ("turn on the kitchen light", ToolCall("light_on", {"device": "kitchen_light"}), "The kitchen light is on."),
    ("set the bedroom lamp to 40", ToolCall("light_brightness", {"device": "bedroom_lamp", "brightness": 40}), "Done."),
    ("is the front door locked?", None, "The front door is locked."),
)


def tiny_conversations(site_name: str = "home") -> list[list[Message]]:
    """Return short conversations on a site: system text, request with state, a call with its result, an answer."""
    site = load_site(site_name)
    template = load_template("chatml")
    system = Message("system", contract_of(site, template).system_text)
    state = World(site).snapshot()
    conversations = []
    for ask, call, answer in REPLIES:
        messages = [system, user_message(ask, state, "08:00")]
        if call:
            messages += [
                Message("assistant", "", "The request names one device.", (call,)),
                Message("tool", '{"status":"done"}'),
            ]
        conversations.append([*messages, Message("assistant", answer, "I can say it now.")])
    return conversations


def tiny_samples(template: ChatTemplate | None = None) -> list[Sample]:
    """Return the tiny conversations as an export reads them from a run."""
    return [sample_of(template or load_template("chatml"), messages) for messages in tiny_conversations()]


def tiny_texts(template: ChatTemplate | None = None) -> list[str]:
    """Return the rendered text of the tiny conversations."""
    template = template or load_template("chatml")
    return [template.render(messages, add_generation_prompt=False) for messages in tiny_conversations()]


def make_tiny_base(
    folder: Path, seed: int = 0, layers: int = 2, changes: dict[str, object] | None = None, shard: str = "5GB"
) -> Path:
    """Save a random-weight Llama of about a million parameters, with its tokenizer, in bfloat16; return `folder`.

    Args:
        changes: other values for the starter's configuration.
        shard: the largest size of one weights file, such as "500KB".
    """
    import torch
    from transformers import LlamaForCausalLM

    from finetune.pretraining.starter_model import starter_config, train_tokenizer

    tokenizer = train_tokenizer(tiny_texts(), TINY_VOCABULARY)
    torch.manual_seed(seed)
    config = starter_config(TINY_VOCABULARY, layers)
    for key, value in (changes or {}).items():
        setattr(config, key, value)
    model = LlamaForCausalLM(config)
    spread_weights(model)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


def spread_weights(model: object) -> None:
    """Scale random weights up so that attention and logits are far from uniform: a wrong layout then shows."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():  # type: ignore[attr-defined]
            if weight.ndim == 2:
                weight.mul_(5.0 if "self_attn" in name else 3.0)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)


def make_tiny_run(
    folder: Path, base: Path, site_name: str = "home", targets: tuple[str, ...] | None = None, **kind: Any
) -> Path:
    """Save a run directory, as `edgewright train` does, whose LoRA adapter is random and not zero; return `folder`.

    Args:
        targets: what the adapter changes; the seven projections if None.
        kind: use_rslora, use_dora, rank_pattern or alpha_pattern.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    template = load_template("chatml")
    site = load_site(site_name)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(targets or LORA_TARGETS), task_type="CAUSAL_LM", **kind)
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by a name that it has deprecated
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, config)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "magnitude" in name:
                weight *= torch.empty_like(weight).uniform_(0.8, 1.2)
            elif "lora_" in name:
                weight.normal_(std=0.05)
    folder.mkdir(parents=True, exist_ok=True)
    adapted.save_pretrained(folder / "adapter")
    (folder / "site.yaml").write_bytes((SITES_FOLDER / f"{site_name}.yaml").read_bytes())
    (folder / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    rows = [Row(("tiny",), tuple(messages)) for messages in tiny_conversations(site_name)]
    write_rows(folder / "sample.jsonl", rows)
    facts = tiny_facts(
        base=str(base), site=site_name, contract=contract_of(site, template).digest, data=data_facts(rows=len(rows))
    )
    (folder / RUN_FILE).write_text(facts.to_json(), encoding="utf-8")
    return folder


def data_facts(**changes: Any) -> DataFacts:
    """Return facts of data that was not read."""
    return replace(DataFacts("", "0" * 64, rows=0, tokens=0, trained_tokens=0, dropped=0), **changes)


def tiny_facts(**changes: Any) -> RunFacts:
    """Return the facts of a run that learnt nothing, with changes."""
    facts = RunFacts(
        base="", base_sha256={}, site="home", template="chatml", contract="", data=data_facts(), versions={},
        device="cpu", dtype="float32", optimizer="adamw_torch", trained_parameters=0, all_parameters=0,
        losses=((1, 1.5),), seconds=1.0, tokens_per_s=1.0, seed=0,
    )  # fmt: skip
    return replace(facts, **changes)
