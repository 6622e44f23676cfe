"""With every family's tokenizer as published, each reply is trained to its end-of-turn token, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.site.site import load_site
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import generate_rows
from finetune.data.rows import IGNORED, encode
from tests.families import FAMILIES, save_tokenizer
from tests.vocabularies import VOCABULARIES, Find

PAIRS = sorted({(vocabulary, template) for _, vocabulary, template, _ in FAMILIES.values()})
LARGE = {"llama-bpe", "qwen2"}  # transformers needs half a minute to make a tokenizer of 128,000 tokens out of a GGUF
CASES = [
    pytest.param(
        source,
        *pair,
        id=f"{pair[0]}-{source}",
        marks=[pytest.mark.slow] if source == "published" and pair[0] in LARGE else [],
    )
    for pair in PAIRS
    for source, vocabulary in VOCABULARIES
    if vocabulary == pair[0]
]


@pytest.mark.parametrize(("source", "vocabulary", "template_name"), CASES)
def test_every_reply_is_trained_to_its_end(
    vocabularies: Find, source: str, vocabulary: str, template_name: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(vocabulary, vocabularies(source), tmp_path)
    tokenizer, template = AutoTokenizer.from_pretrained(tmp_path), load_template(template_name)
    end_of_turn = tokenizer.convert_tokens_to_ids(template.end_of_turn)
    for row in generate_rows(load_site("home"), 8, 1):
        token_ids, labels = encode(row.messages, template, tokenizer)
        assert len(token_ids) == len(labels)
        assert all(label in (IGNORED, token) for token, label in zip(token_ids, labels, strict=True))
        replies = sum(message.role == "assistant" for message in row.messages)
        assert labels.count(end_of_turn) == replies > 0
        ends = [place for place, label in enumerate(labels) if label == end_of_turn]
        assert all(label == IGNORED for label in (labels[place + 1] for place in ends[:-1]))
        said = tokenizer.decode([label for label in labels if label != IGNORED])
        for message in row.messages:
            for call in message.calls:
                assert f'"name":"{call.name}"' in said.replace(" ", "")
