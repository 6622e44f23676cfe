"""The chat templates of every family: bytes, ends of turns, and tokens of the families' own vocabularies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from devices.errors import UsageError
from edge_agent.wire.chat_template import END_OF_TURN, ChatTemplate, load_template
from edge_agent.wire.messages import Message, body_of, user_message
from tests.edge_agent.wire.test_wire import CONVERSATION
from tests.families import save_tokenizer
from tests.made_vocabularies import PUBLISHED
from tests.vocabularies import Find, open_vocabulary

# template: vocabulary
VOCABULARY_OF = {
    "mistral": "llama-spm", "alpaca": "llama-spm", "phi3": "phi-3", "chatml": "qwen2", "llama3": "llama-bpe",
    "gemma": "gemma",
}  # fmt: skip
BYTE_LEVEL = ["chatml", "llama3"]


def over(names: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test over families with a made and a published vocabulary; those with over 100,000 tokens are slow."""
    cases = [pytest.param(("made", name), id=f"made-{name}") for name in names]
    for name in (name for name in names if VOCABULARY_OF[name] in PUBLISHED):
        marks = [pytest.mark.slow] if name in BYTE_LEVEL else []
        cases.append(pytest.param(("published", name), id=f"published-{name}", marks=marks))
    return pytest.mark.parametrize("family", cases, indirect=True)


BYTES = {
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "<think> T</think>A<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] S\n\nU[/INST]<think> T</think>A</s>[INST] Results:\n{}[/INST]",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n<think> T</think>A<|end|>\n"
    "<|user|>\nResults:\n{}<|end|>\n<|assistant|>\n",
    "gemma": "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n<think> T</think>A<end_of_turn>\n"
    "<start_of_turn>user\nResults:\n{}<end_of_turn>\n<start_of_turn>model\n",
    "alpaca": "<s>S\n\n### Instruction:\nU\n\n### Response:\n<think> T</think>A</s>\n\n"
    "### Input:\n{}\n\n### Response:\n",
}


@pytest.fixture(params=sorted(END_OF_TURN))
def template(request: pytest.FixtureRequest) -> ChatTemplate:
    return load_template(request.param)


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str) -> None:
    messages = [Message("system", "S"), Message("user", "U"), Message("assistant", "A", "T"), Message("tool", "{}")]
    assert load_template(name).render(messages, add_generation_prompt=True) == BYTES[name]


def test_segments_are_the_text_and_train_whole_assistant_turns_only(template: ChatTemplate) -> None:
    segments = template.segments(CONVERSATION)
    assert "".join(segment.text for segment in segments) == template.render(CONVERSATION, add_generation_prompt=False)
    assert [segment.text for segment in segments if segment.is_trained] == [
        body_of(message) + template.end_of_turn for message in CONVERSATION if message.role == "assistant"
    ]


def test_every_prompt_starts_with_the_static_prefix(template: ChatTemplate) -> None:
    prefix = template.render(CONVERSATION[:1], add_generation_prompt=False)
    assert template.render(CONVERSATION[:2], add_generation_prompt=True).startswith(prefix)
    assert len(prefix) >= len(CONVERSATION[0].text)


def test_hugging_face_and_llama_cpp_python_render_the_same_bytes(template: ChatTemplate) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
    from transformers.utils.chat_template_utils import render_jinja_template

    plain = [{"role": message.role, "content": body_of(message)} for message in CONVERSATION]
    ours = template.render(CONVERSATION, add_generation_prompt=True)
    rendered, _ = render_jinja_template([plain], chat_template=template.source, add_generation_prompt=True)
    formatter = Jinja2ChatFormatter(template.source, eos_token=template.end_of_turn, bos_token="")
    assert rendered[0] == ours
    assert formatter(messages=plain).prompt == ours  # type: ignore[arg-type]


def test_what_a_person_says_is_no_end_of_a_turn(template: ChatTemplate) -> None:
    marks = [template.end_of_turn, "[/INST]", "### Response:", "<|start_header_id|>", "<start_of_turn>", "<s>", "<bos>"]
    plain = user_message("hello", {}, "08:00")
    for mark in marks:
        said = user_message(f"hello{mark}", {}, "08:00")
        both = [template.render([message], add_generation_prompt=True) for message in (plain, said)]
        assert both[0].count(mark) == both[1].count(mark)


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(UsageError, match="no template is called 'llama4'") as caught:
        load_template("llama4")
    assert "mistral" in caught.value.hint


@dataclass(frozen=True)
class Family:
    """A template's name, its family's vocabulary and the folder that has it, and llama.cpp's handle of it."""

    name: str
    vocabulary: str
    folder: Path
    vocab: Any

    def tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        return list(buffer[: llama_cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, len(buffer), False, True)])


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, vocabularies: Find) -> Iterator[Family]:
    source, name = request.param
    folder, vocabulary = vocabularies(source), VOCABULARY_OF[name]
    with open_vocabulary(folder, vocabulary) as vocab:
        yield Family(name, vocabulary, folder, vocab)


@over(VOCABULARY_OF)
def test_a_turn_ends_with_one_token_that_stops_llama_cpp(family: Family) -> None:
    ids = family.tokenize(load_template(family.name).end_of_turn)
    assert len(ids) == 1 and llama_cpp.llama_vocab_is_eog(family.vocab, ids[0])


@over(VOCABULARY_OF)
def test_a_prompt_has_the_tokens_that_the_whole_conversation_has(family: Family) -> None:
    """What stands before a reply is tokenized alone when running, and with all the rest when training."""
    template = load_template(family.name)
    whole, text = family.tokenize(template.render(CONVERSATION, add_generation_prompt=False)), ""
    for segment in template.segments(CONVERSATION):
        text += segment.text
        assert family.tokenize(text) == whole[: len(family.tokenize(text))]
    starts = whole.count(llama_cpp.llama_vocab_bos(family.vocab))
    assert starts == (0 if family.name in {"chatml", "phi3"} else 1)


@over(BYTE_LEVEL)
def test_hugging_face_has_the_same_tokens(family: Family, tmp_path: Path) -> None:
    """SentencePiece GGUF files put blanks elsewhere than tokenizer.json: export/convert/test_families.py has those."""
    from transformers import AutoTokenizer

    from finetune.data.rows import IGNORED, encode

    template = load_template(family.name)
    save_tokenizer(family.vocabulary, family.folder, tmp_path)
    token_ids, labels = encode(CONVERSATION, template, AutoTokenizer.from_pretrained(tmp_path))
    assert token_ids == family.tokenize(template.render(CONVERSATION, add_generation_prompt=False))
    end = family.tokenize(template.end_of_turn)[0]
    assert labels.count(end) == 3 and sum(label != IGNORED for label in labels) < len(labels) / 3
