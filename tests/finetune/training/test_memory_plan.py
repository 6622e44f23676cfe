"""What a dry run says: memory and tokens against the real thing, and nothing written."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from devices.errors import UnavailableError
from devices.site.site import load_site
from edge_agent.progress import ProgressBar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from finetune.data.encoded_rows import EncodedRows, encode_rows
from finetune.data.rows import IGNORED, Row, write_rows
from finetune.recipe import Lora, Recipe, load_recipe
from finetune.training.cpu_attention import CPU_ATTENTION
from finetune.training.memory_plan import AUTO_TOKENS, Planner
from finetune.training.prefix_loss import shared_prefix, summed_loss
from finetune.training.quantized_base import Machine, add_adapter
from finetune.training.run_folder import part_of
from finetune.training.step_memory import LiveBytes, Shape, StepCounter
from finetune.training.train import dry_run, train_run
from tests.tiny_base import make_tiny_base, tiny_conversations

ROOT = Path(__file__).parents[3]
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


@pytest.mark.parametrize(
    ("part", "checkpointing"),
    [(Shape(0, (300,), 90), False), (Shape(120, (200, 190, 170), 120), False), (Shape(0, (300, 300), 90), True)],
)
def test_what_is_counted_without_contents_is_what_a_pass_holds(
    tmp_path: Path, part: Shape, checkpointing: bool
) -> None:
    base = make_tiny_base(tmp_path / "base", layers=4)
    counter = StepCounter(AutoConfig.from_pretrained(base), torch.float32, Lora(), is_quantized=False)
    one, two = (counter.peak(layers, part, checkpointing=checkpointing) for layers in (1, 2))
    attention = {"dtype": torch.float32, "attn_implementation": CPU_ATTENTION}
    model = add_adapter(AutoModelForCausalLM.from_pretrained(base, **attention).requires_grad_(False), Lora()).train()
    causal = model.get_base_model()
    if checkpointing:
        causal.activation_checkpointing_enable({"use_reentrant": False})
        causal.enable_input_require_grads()
    longest = max(part.lengths)
    ids = torch.randint(0, 500, (len(part.lengths), longest))
    ids[:, : part.shared + 1] = ids[0, : part.shared + 1].clone()
    mask = (torch.arange(longest) < torch.tensor(part.lengths)[:, None]).long()
    labels = torch.full_like(ids, IGNORED)
    trained = part.trained // len(part.lengths)
    for row, length in enumerate(part.lengths):
        labels[row, length - trained : length] = 7
    batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    assert shared_prefix(batch) == part.shared
    with LiveBytes() as live:
        summed_loss(causal, batch, share_prefix=True).backward()
    assert one + 3 * (two - one) == pytest.approx(live.peak, rel=0.05)


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
    (first, most), (second, next_most) = planner.savings(without)[:2]
    assert first.startswith("training.gradient_checkpointing=true") and second == "training.batch_tokens=4096"
    assert most > next_most > GIB


def test_a_dry_run_plans_the_steps_that_training_takes_and_writes_nothing(base: Path, tmp_path: Path) -> None:
    recipe = recipe_for(base, tmp_path)
    found = dry_run(recipe, ProgressBar(io.StringIO()))
    assert not Path(recipe.out).exists() and not part_of(Path(recipe.out)).exists()
    assert found.rows == 9 and len(found.examples) == 3 and found.plan.seconds > 0
    trained = "".join(text for text, is_trained in found.examples[0] if is_trained)
    assert trained.startswith("<think>") and trained.endswith("<|im_end|>")
    facts = train_run(recipe, progress=ProgressBar(io.StringIO()))
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


def test_rows_longer_than_a_window_share_no_prefix(base: Path, tmp_path: Path) -> None:
    recipe, config = recipe_for(base, tmp_path), AutoConfig.from_pretrained(base)
    rows = EncodedRows(([1] * 300,) * 4, ([IGNORED] * 290 + [1] * 10,) * 4, 0)
    for window, shares in ((299, False), (300, True), (None, True)):
        config.sliding_window = window
        planner = Planner(CPU, rows, config)
        fitted = planner.fit(recipe, None)
        assert fitted.training.share_prefix == shares
        assert planner.largest(fitted).tokens == (289 + 2 * 11 if shares else 600)


def test_auto_is_the_largest_that_fits_and_a_number_stays(base: Path, tmp_path: Path) -> None:
    ids, labels = [1] * 1500, [IGNORED] * 1400 + [1] * 100
    planner = Planner(CPU, EncodedRows((ids,) * 8, (labels,) * 8, 0), AutoConfig.from_pretrained(base))
    recipe = recipe_for(base, tmp_path, batch_rows=8, share_prefix=False)
    needed = {tokens: planner.memory(with_tokens(recipe, tokens)).needed for tokens in AUTO_TOKENS}
    assert sorted(needed.values(), reverse=True) == list(needed.values()) and needed[8192] > 2 * needed[2048]
    for free, tokens in (
        (None, 8192),
        (10 * needed[8192], 8192),
        (needed[8192], 4096),
        (needed[4096], 2048),
        (1, 1024),
    ):
        assert planner.fit(recipe, free).training.batch_tokens == tokens
    assert planner.fit(with_tokens(recipe, 3000), 1).training.batch_tokens == 3000
    assert planner.shortage(with_tokens(recipe, 8192), needed[8192]) == ("", "")
    message, hint = planner.shortage(with_tokens(recipe, 8192), needed[8192] - 1)
    assert "more memory, and" in message and "training.batch_tokens=3750 saves about" in hint


def with_tokens(recipe: Recipe, tokens: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"batch_tokens": tokens})})


# A child whose address space may grow by some MiB from where it is once everything is loaded.
CHILD = """
import resource, sys
import bitsandbytes, finetune.training.adapter_trainer, finetune.training.memory_plan, finetune.training.train
from edgewright import main
from edge_agent.engine.free_memory import _numbers, Path
limit = _numbers(Path("/proc/self/status"))["VmSize"] + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
codes = [main(["train", sys.argv[2]])]
finetune.training.memory_plan.free_for = lambda machine: None
codes.append(main(["train", sys.argv[2]]))
print(codes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
def test_a_process_without_the_memory_ends_in_one_line(base: Path, tmp_path: Path) -> None:
    """Planned, before its first step; unplanned, where torch finds that there is none."""
    recipe = recipe_for(base, tmp_path, batch_rows=36, batch_tokens=100_000, share_prefix=False)
    rows = [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()]
    write_rows(Path(recipe.data), rows * 12)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    words = [sys.executable, "-W", "ignore", "-c", CHILD, "400", str(tmp_path / "recipe.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "[3, 3]\n" and "Traceback" not in done.stderr, done.stderr[-2000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all("hint: training." in line for line in errors)
    planned, unplanned = errors
    assert re.match(r"error: training needs about .* more memory, and .* are free", planned)
    assert re.match(r"error: out of memory at step 0", unplanned)
    assert done.stderr.index(planned) < done.stderr.index("36 rows, starting at step 0")


def test_out_of_memory_says_what_helps_most(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.training.adapter_trainer import AdapterTrainer

    def train(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AdapterTrainer, "train", train)
    with pytest.raises(UnavailableError, match="out of memory at step 0") as caught:
        train_run(recipe_for(base, tmp_path, share_prefix=False), progress=ProgressBar(io.StringIO()))
    saved = dict(hint.split(" saves about ") for hint in caught.value.hint.split("; "))
    assert any(name.startswith("training.batch_tokens=") for name in saved)
    assert "training.gradient_checkpointing=true training.share_prefix=false" in saved
    sizes = [float(size.split()[0]) for size in saved.values() if size.endswith(" MiB")]
    assert sizes == sorted(sizes, reverse=True)  # what helps most comes first
