"""The chat templates of every family: bytes, ends of turns, and tokens of the families' own vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import llama_cpp
import pytest

from devices.errors import UsageError
from edge_agent.wire import END_OF_TURN, ChatTemplate, Message, body_of, load_template, user_message
from tests.edge_agent.test_wire import CONVERSATION
from tests.vocabularies import VOCABULARIES, open_vocabulary

FAMILIES = [
    pytest.param(("mistral", "llama-spm"), id="mistral"),
    pytest.param(("alpaca", "llama-spm"), id="alpaca"),
    pytest.param(("phi3", "phi-3"), id="phi3"),
    pytest.param(("chatml", "qwen2"), id="chatml", marks=pytest.mark.slow),  # over 100,000 tokens
    pytest.param(("llama3", "llama-bpe"), id="llama3", marks=pytest.mark.slow),
]
BYTES = {
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "<think> T</think>A<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] S\n\nU[/INST]<think> T</think>A</s>[INST] Results:\n{}[/INST]",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n<think> T</think>A<|end|>\n"
    "<|user|>\nResults:\n{}<|end|>\n<|assistant|>\n",
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
    marks = [template.end_of_turn, "[/INST]", "### Response:", "<|start_header_id|>", "<s>"]
    plain = user_message("hello", {}, "08:00")
    for mark in marks:
        said = user_message(f"hello{mark}", {}, "08:00")
        both = [template.render([message], add_generation_prompt=True) for message in (plain, said)]
        assert both[0].count(mark) == both[1].count(mark)


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(UsageError, match="no template is called 'llama4'") as caught:
        load_template("llama4")
    assert "mistral" in caught.value.hint


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Callable[[str], list[int]], int]]:
    """A template's name, its family's vocabulary, llama.cpp's tokens of a text, and the vocabulary's handle."""
    name, vocabulary = request.param
    with open_vocabulary(vocabulary) as vocab:

        def tokenize(text: str) -> list[int]:
            raw = text.encode()
            buffer = (llama_cpp.llama_token * (len(raw) + 8))()
            return list(buffer[: llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, len(buffer), False, True)])

        yield name, vocabulary, tokenize, vocab


def test_a_turn_ends_with_one_token_that_stops_llama_cpp(
    family: tuple[str, str, Callable[[str], list[int]], int],
) -> None:
    name, _, tokenize, vocab = family
    ids = tokenize(load_template(name).end_of_turn)
    assert len(ids) == 1 and llama_cpp.llama_vocab_is_eog(vocab, ids[0])


def test_a_prompt_has_the_tokens_that_the_whole_conversation_has(
    family: tuple[str, str, Callable[[str], list[int]], int],
) -> None:
    """What stands before a reply is tokenized alone when running, and with all the rest when training."""
    name, _, tokenize, vocab = family
    template = load_template(name)
    whole, text = tokenize(template.render(CONVERSATION, add_generation_prompt=False)), ""
    for segment in template.segments(CONVERSATION):
        text += segment.text
        assert tokenize(text) == whole[: len(tokenize(text))]
    starts = whole.count(llama_cpp.llama_vocab_bos(vocab))
    assert starts == (0 if name in {"chatml", "phi3"} else 1)


@pytest.mark.slow
def test_hugging_face_has_the_same_tokens(family: tuple[str, str, Callable[[str], list[int]], int]) -> None:
    from transformers import AutoTokenizer

    from finetune.rows import IGNORED, encode

    name, vocabulary, tokenize, _ = family
    if vocabulary in {"llama-spm", "phi-3"}:
        pytest.skip("transformers makes another tokenizer of these files than the families' own tokenizer.json")
    template = load_template(name)
    tokenizer = AutoTokenizer.from_pretrained(VOCABULARIES, gguf_file=f"ggml-vocab-{vocabulary}.gguf")
    token_ids, labels = encode(CONVERSATION, template, tokenizer)
    assert token_ids == tokenize(template.render(CONVERSATION, add_generation_prompt=False))
    end = tokenize(template.end_of_turn)[0]
    assert labels.count(end) == 3 and sum(label != IGNORED for label in labels) < len(labels) / 3
