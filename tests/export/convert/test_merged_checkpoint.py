"""A merged model on disk is the base with its adapter live."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import UsageError
from export.convert.merged_checkpoint import save_merged
from tests.export.conftest import Tiny
from tests.tiny_base import make_tiny_base


def test_it_loads_as_any_model_and_says_what_the_adapter_says(tiny: Tiny, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_merged(tiny.base, tiny.adapter, tmp_path / "merged")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "merged").get_vocab()
        == AutoTokenizer.from_pretrained(tiny.base).get_vocab()
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tiny.base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(plain, tiny.adapter).merge_and_unload().to(torch.bfloat16).state_dict()
    for name, weight in merged.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_a_shard_is_a_shard(tiny: Tiny, tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", shard="700KB")
    save_merged(base, tiny.adapter, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {path.name for path in base.iterdir()}


def test_nothing_is_overwritten_or_left_half(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        save_merged(tiny.base, tiny.adapter, tmp_path)
    base = make_tiny_base(tmp_path / "base", layers=1)
    with pytest.raises(UsageError, match=r"changes model\.layers\.1.*which the base does not have"):
        save_merged(base, tiny.adapter, tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))
