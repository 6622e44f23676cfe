"""What a dry run says: memory and tokens against the real thing, and nothing written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from devices.errors import UnavailableError
from devices.site import load_site
from edge_agent.wire import contract_of, load_template
from finetune.plan import Planner, kept_bytes
from finetune.prefix_loss import shared_prefix
from finetune.progress_bar import StepProgress
from finetune.quantized_base import Machine, add_adapter, empty_base
from finetune.recipe import Lora, Recipe, load_recipe
from finetune.rows import IGNORED, Row, write_rows
from finetune.run_folder import part_of
from finetune.train import dry_run, train_run
from finetune.training_rows import EncodedRows, encode_rows
from tests.tiny_base import make_tiny_base, tiny_conversations

CPU = Machine("cpu", torch.float32, "adamw_bnb_8bit")
BF16 = Machine("cpu", torch.bfloat16, "adamw_bnb_8bit")
# Source: config.json of meta-llama/Llama-3.2-3B and Meta-Llama-3-8B
LLAMA_3B: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
GIB = 2**30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


def recipe_for(base: Path, folder: Path, **training: Any) -> Recipe:
    write_rows(folder / "train.jsonl", [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()] * 3)
    plain = {"schema": "recipe/v1", "base": str(base), "site": "home", "data": str(folder / "train.jsonl")}
    settings = {"batch_rows": 2, "epochs": 2, "checkpoint_every": 9, "warmup_steps": 0} | training
    return Recipe.model_validate(plain | {"out": str(folder / "run"), "training": settings})


def test_what_is_counted_without_weights_is_what_autograd_keeps_with_them(base: Path) -> None:
    model = add_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), Lora())
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.get_base_model().base_model(torch.zeros(1, 300, dtype=torch.long), use_cache=False)
    with torch.device("meta"):
        empty = add_adapter(empty_base(AutoConfig.from_pretrained(base), torch.float32), Lora())
    assert output is not None and kept_bytes(empty, 300) == pytest.approx(sum(kept.values()), rel=0.1)


@pytest.mark.parametrize(("shape", "base_gib"), [(LLAMA_3B, 2.1), (LLAMA_8B, 5.3)])
def test_real_shapes_fit_a_24_gb_card_with_gradient_checkpointing(shape: dict[str, Any], base_gib: float) -> None:
    ids, labels = [1] * 2048, [IGNORED] * 1948 + [1] * 100
    rows = EncodedRows((ids,) * 4, (labels,) * 4, 0)
    planner = Planner(BF16, rows, LlamaConfig(**shape))
    recipe = load_recipe("home_llama32_3b", ["training.batch_rows=4"])
    memory = planner.memory(recipe)
    assert memory.base / GIB == pytest.approx(base_gib, rel=0.03) and memory.total < 14 * GIB
    without = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"gradient_checkpointing": False})}
    )
    assert planner.memory(without).total > 40 * GIB
    first, second = planner.savings(without)[:2]
    assert first[0].startswith("training.gradient_checkpointing=true") and first[1] > second[1] > GIB


def test_a_dry_run_plans_the_steps_that_training_takes_and_writes_nothing(base: Path, tmp_path: Path) -> None:
    recipe = recipe_for(base, tmp_path)
    found = dry_run(recipe, StepProgress(io.StringIO()))
    assert not Path(recipe.out).exists() and not part_of(Path(recipe.out)).exists()
    assert found.rows == 9 and len(found.examples) == 3 and found.plan.seconds > 0
    trained = "".join(text for text, is_trained in found.examples[0] if is_trained)
    assert trained.startswith("<think>") and trained.endswith("<|im_end|>")
    facts = train_run(recipe, progress=StepProgress(io.StringIO()))
    assert found.plan.steps == len(facts.losses)


def test_shared_tokens_are_counted_as_training_shares_them(base: Path, tmp_path: Path) -> None:
    recipe = recipe_for(base, tmp_path)
    contract = contract_of(load_site("home"), load_template("chatml"))
    rows = encode_rows(Path(recipe.data), contract, AutoTokenizer.from_pretrained(base), 4096)
    planner = Planner(CPU, rows, AutoConfig.from_pretrained(base))
    for pair in ([0, 1], [1, 2], [0, 3]):
        longest = max(len(rows.token_ids[row]) for row in pair)
        padded = [
            torch.tensor([(ids + [0] * longest)[:longest] for ids in (rows.token_ids[row] for row in pair)]),
            torch.tensor([(ids + [IGNORED] * longest)[:longest] for ids in (rows.labels[row] for row in pair)]),
        ]
        mask = torch.tensor([[at < len(rows.token_ids[row]) for at in range(longest)] for row in pair]).long()
        batch = {"input_ids": padded[0], "labels": padded[1], "attention_mask": mask}
        assert planner._shared(pair) == shared_prefix(batch) > 0


def test_out_of_memory_says_what_helps_most(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.adapter_trainer import AdapterTrainer

    def train(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AdapterTrainer, "train", train)
    with pytest.raises(UnavailableError, match="out of GPU memory at step 0") as caught:
        train_run(recipe_for(base, tmp_path, share_prefix=False), progress=StepProgress(io.StringIO()))
    first, second, *_ = caught.value.hint.split("; ")
    assert first.startswith("training.batch_rows=1 training.accumulate=2 saves about ")
    assert second.startswith("training.gradient_checkpointing=true training.share_prefix=false saves about ")
