"""The starter base model: its tokenizer and its shape. Small enough to pretrain on two cores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

from edge_agent.wire.markers import MARKERS

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY_SIZE = 2304  # the words of the phrasings, and syllables of others
CONTEXT_TOKENS = 4096
# Llama 3's pre-tokenizer, which llama.cpp knows as "llama-bpe": up to three digits are one token, so that a value is
# copied and compared in one step. Source: Llama 3 tokenizer.json; llama.cpp src/llama-vocab.cpp,
# LLAMA_VOCAB_PRE_TYPE_LLAMA3.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LOOKING_PAIRS, LOOKING_STRENGTH = 12, 5.0  # rotated pairs of a head, from the fastest, that tell distances apart
WHOLE_NUMBERS = 320  # 0 to 319 are tokens, whether the texts have them or not


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> Any:
    """Return a byte-level BPE tokenizer (PreTrainedTokenizerFast); the wire format's markers are single tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, *MARKERS]
    # As when encoding: what stands beside a marker is a word of its own.
    marked = re.compile("|".join(map(re.escape, reserved)))
    plain = (part for text in texts for part in marked.split(text) if part)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(reserved),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = " ".join(map(str, range(WHOLE_NUMBERS)))
    tokenizer.train_from_iterator(chain(plain, [numbers]), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in reserved[:3]])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_TOKENS,
    )


def starter_config(vocabulary_size: int, layers: int = 6) -> Any:
    """Return the LlamaConfig of the starter; every width is a multiple of 256, as K-quants need.

    Args:
        vocabulary_size: rows of the embedding, which the output shares.
        layers: 6 gives 4.1 million parameters with 2,304 tokens.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def look_back(model: Any, rng: Any) -> None:
    """Give the four heads of the first layer a start: each looks at a token some places before, one to four.

    To find what followed an earlier token, a head must know at each place which token came before; in a line of a state
    the value stands three and four places after the name. A model finds that out by itself, and late. Every token's
    embedding gets the same direction; queries and keys see it and nothing much else, so that only the rotation by
    distance (RoPE) is left to decide.

    Args:
        model: a LlamaForCausalLM with fresh weights, changed in place.
        rng: random.Random.
    """
    import math

    import torch

    config = model.config
    width, size, half = config.hidden_size, config.head_dim, config.head_dim // 2
    direction = torch.tensor([rng.choice((-1.0, 1.0)) for _ in range(width)]) / math.sqrt(width)
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(LOOKING_PAIRS) / half)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding += direction * embedding.norm(dim=1).mean()
        seen = LOOKING_STRENGTH * direction / math.sqrt(width / 2)  # what a normalized embedding has of it comes to 1
        attention.q_proj.weight *= 0.2
        attention.k_proj.weight *= 0.2
        for key in attention.k_proj.weight.split(size):
            key[:LOOKING_PAIRS] += seen
        for distance, query in enumerate(attention.q_proj.weight.split(size), start=1):
            query[:LOOKING_PAIRS] += torch.cos(frequencies * distance)[:, None] * seen
            query[half : half + LOOKING_PAIRS] -= torch.sin(frequencies * distance)[:, None] * seen
