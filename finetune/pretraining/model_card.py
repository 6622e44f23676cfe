"""The starter's model card, from the figures of its own pretraining run."""

from __future__ import annotations

from typing import Any


def model_card(figures: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        figures: what finetune.pretraining.pretrain.pretrain returns.
    """
    recipe = figures["recipe"]
    sites = recipe["steps"] * recipe["step_trees"]
    return f"""---
license: apache-2.0
language: en
---

# Edgewright starter

A Llama-architecture language model of {figures["parameters"] / 1e6:.1f} million parameters, pretrained from scratch to
work the devices of a site that its prompt describes. It stands in for a model such as Llama 3.2 3B where the whole
path must run on two processor cores; a real one loads through the same code.

| | |
|---|---|
| made by | `edgewright pretrain starter` (finetune/pretrain_recipes/starter.yaml) |
| data | {figures["branches"]:,} generated conversations over {sites:,} random sites; nothing from elsewhere |
| before | {recipe["drill_steps"]} steps of drills, random tokens to look up (data/drills.py), not counted below |
| tokens | {figures["tokens"]:,} seen in {recipe["steps"]:,} steps; what conversations share counts once |
| time | {figures["seconds"] / 60:.0f} minutes on {figures["device"]} ({figures["machine"]}), {figures["dtype"]} |
| loss | {figures["assistant_loss"]} on the assistant's tokens, last 50 steps, each token seen for the first time |
| shape | {recipe["layers"]} layers, width 256, feed-forward 512, 4 heads over 2 key-value heads, context 4096 |
| tokenizer | byte-level BPE, {figures["vocabulary"]} tokens, up to three digits a token, the markers as single tokens |
| weights | bfloat16 |

**Limits.** It knows a few hundred English words and the phrasings of `devices/site/phrasings.yaml`; outside them
it guesses. It writes numbers as digits only, follows no reference to an earlier turn, and knows nothing of the world.
It was never trained on the held-out phrasings (`data/phrases.py`), nor on the sites that ship with Edgewright. Not for
devices that can hurt someone.
"""
