"""The best quantization that fits a box."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import UsageError
from export.architectures import Shape, read_shape
from export.quantize.targets import Target, choose_quant, load_target

LLAMA = {"architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "rms_norm_eps": 1e-5,
         "max_position_embeddings": 131072, "num_key_value_heads": 8, "head_dim": 128}  # fmt: skip
LLAMA_3B = read_shape(LLAMA | {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                               "num_attention_heads": 24, "tie_word_embeddings": True})  # fmt: skip
LLAMA_8B = read_shape(LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                               "num_attention_heads": 32})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "quant"),
    [
        ("rpi5-8gb", LLAMA_3B, "Q8_0"),
        ("rpi5-8gb", LLAMA_8B, "Q6_K"),
        ("rpi4-4gb", LLAMA_3B, "Q6_K"),
        ("jetson-orin-nano", LLAMA_8B, "Q4_K_M"),
        ("x86-8gb", LLAMA_8B, "Q5_K_M"),
    ],
)
def test_the_best_that_fits_is_chosen(name: str, shape: Shape, quant: str) -> None:
    choice = choose_quant(load_target(name), shape)
    assert choice.quant == quant and choice.model + choice.context + choice.working <= choice.free
    assert choice.reason.startswith(f"{quant} is the best that fits")


def test_a_board_with_arm_cores_gets_what_they_are_fast_with() -> None:
    board = Target(memory_gib=6.5, reserved_gib=1.5, processor="arm")
    assert choose_quant(board, LLAMA_8B).quant == "Q4_0"
    assert choose_quant(board.model_copy(update={"processor": "x86"}), LLAMA_8B).quant == "Q4_K_M"


def test_what_does_not_fit_is_said_with_numbers() -> None:
    with pytest.raises(UsageError, match=r"even as IQ4_XS the model needs about \d\.\d\d GiB, and 1\.00 are free"):
        choose_quant(Target(memory_gib=2.0, reserved_gib=1.0, processor="x86"), LLAMA_8B)


def test_a_target_of_one_s_own_and_a_wrong_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "schema: targets/v1\ntargets:\n  box: {memory_gib: 3.0, reserved_gib: 1.0, processor: x86}\n", encoding="utf-8"
    )
    assert load_target(f"{mine}:box").memory_gib == 3.0
    with pytest.raises(UsageError, match="has no target 'rpi5'") as caught:
        load_target("rpi5")
    assert caught.value.hint == "did you mean rpi5-8gb?"
    mine.write_text(mine.read_text(encoding="utf-8").replace("x86", "mips"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"mine\.yaml:3"):
        load_target(f"{mine}:box")
