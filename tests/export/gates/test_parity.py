"""Each gate stops what it is there for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError, UnavailableError, UsageError
from edge_agent.engine.gguf_header import BadGguf, require_gguf
from edge_agent.evaluation.gate_limits import GateLimits
from export.convert.gguf_writer import convert
from export.convert.tokenizer import read_vocabulary
from export.gates import parity
from export.llama_cpp_file import LlamaFile
from tests.export.conftest import Tiny

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def test_an_end_of_turn_that_does_not_stop_is_stopped(tiny: Tiny) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    with LlamaFile(tiny.f16) as model:
        parity.check_end_of_turn(model, tokenizer, tiny.template)
        for other in ("<think>", "two words"):
            with pytest.raises(GateError, match="gate end of turn"):
                parity.check_end_of_turn(model, tokenizer, replace(tiny.template, end_of_turn=other))


def test_an_end_of_turn_that_is_no_token_is_a_usage_error(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match=r"<\|eot_id\|>.*not one token"):
        read_vocabulary(tiny.base, 512, "<|eot_id|>")


def test_broken_probabilities_are_stopped(tiny: Tiny) -> None:
    import numpy

    rows = [numpy.log(numpy.full((4, 8), 1 / 8, numpy.float32))]
    broken = [numpy.full((4, 8), numpy.nan, numpy.float32)]
    measured = parity.compare(rows, broken)
    assert not measured.mean_kl < GateLimits().logits_kl
    assert numpy.isnan(measured.max_abs_delta)


def test_the_limits_separate_right_from_wrong(tiny: Tiny) -> None:
    """A right conversion is at least 20 times below the limit; test_gguf_writer has the wrong ones above it."""
    assert tiny.export["gates"]["logits"]["mean_kl"] * 20 < GateLimits().logits_kl


def test_no_texts_is_a_usage_error(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="at least one text"):
        parity.F16Reference(tiny.f16, [])


def test_llama_cpp_stays_quiet(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    with LlamaFile(tiny.f16) as model:
        model.log_probs(model.tokenize("hello"), [0])
    out, err = capfd.readouterr()
    assert out + err == ""


def test_a_cut_model_never_reaches_llama_cpp(tiny: Tiny, tmp_path: Path) -> None:
    path, data = tmp_path / "cut.gguf", tiny.f16.read_bytes()
    for size in [*range(200), *range(200, len(data), len(data) // 60), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(BadGguf):
            LlamaFile(path)


def test_a_sound_header_that_llama_cpp_refuses_is_explained(tiny: Tiny, tmp_path: Path) -> None:
    data = tiny.f16.read_bytes().replace(b"output_norm.weight", b"output_n0rm.weight")
    (tmp_path / "m.gguf").write_bytes(data)
    require_gguf(tmp_path / "m.gguf")
    with pytest.raises(UnavailableError, match="output_norm"):
        LlamaFile(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "WordPiece"}}, "WordPiece"),
        (
            {"model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}},
            "normalizer null with pre-tokenizer",
        ),
    ],
)
def test_a_tokenizer_llama_cpp_does_not_know_is_refused(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    base = Path(shutil.copytree(tiny.base, tmp_path / "base"))
    plain = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    (base / "tokenizer.json").write_text(json.dumps(plain | change), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_vocabulary(base, 512, "<|im_end|>")
    assert message in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("pre_tokenizer", "pre", "ignore_merges"),
    [
        (BYTES, "gpt-2", False),
        (
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                   BYTES]},
            "smollm", False,
        ),
        (
            {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": (
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+")}},
                BYTES | {"use_regex": False}]},
            "llama-bpe", True,
        ),
    ],
)  # fmt: skip
def test_other_families_tokens_agree_too(
    tiny: Tiny, tmp_path: Path, pre_tokenizer: dict[str, Any], pre: str, ignore_merges: bool
) -> None:
    from transformers import AutoTokenizer

    base = Path(shutil.copytree(tiny.base, tmp_path / "base"))
    plain = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    plain["pre_tokenizer"] = pre_tokenizer
    plain["model"]["ignore_merges"] = ignore_merges
    (base / "tokenizer.json").write_text(json.dumps(plain), encoding="utf-8")
    made = convert(base, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
    assert made.pre_tokenizer == pre
    with LlamaFile(tmp_path / "m.gguf") as model:
        assert parity.check_tokens(model, AutoTokenizer.from_pretrained(base), tiny.texts) > 2000
