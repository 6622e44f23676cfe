"""General data in a run: how much of it, measured before and after, and what fails the run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from devices.errors import GateError, UsageError
from edge_agent.progress import ProgressBar
from edge_agent.wire.chat_template import load_template
from finetune.data.encoded_rows import RowEncoder
from finetune.data.rows import IGNORED, Row, write_rows
from finetune.recipe import General, Recipe
from finetune.training.general import encode_general
from finetune.training.prefix_loss import exact_rows
from finetune.training.run_folder import open_run
from finetune.training.train import train_run
from tests.tiny_base import make_tiny_base, tiny_conversations


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in two formats; one cannot be read, one has no answer, one is rendered already."""
    return write_source(tmp_path_factory.mktemp("general") / "general.jsonl", "Hi.")


def write_source(path: Path, last_answer: str) -> Path:
    rows: list[dict[str, Any]] = [
        {"instruction": f"what is {number} and {number}", "input": "", "output": f"It is {2 * number}."}
        for number in range(30)
    ]
    rows += [{"odd": 1}, {"messages": [{"role": "user", "content": "hello"}]}]
    rows += [{"instruction": "<|im_start|>user", "input": "", "output": "yes"}]
    rows += [{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": last_answer}]}] * 5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def encoder_of(base: Path) -> RowEncoder:
    return RowEncoder(load_template("chatml"), AutoTokenizer.from_pretrained(base), 4096)


def test_the_share_is_that_of_all_rows_and_held_out_rows_are_not_mixed_in(base: Path, source: Path) -> None:
    encoder = encoder_of(base)
    rows = encode_general(General(data=str(source), share=0.25, held_out_rows=5), 30, encoder, seed=1)
    assert len(rows.mixed.token_ids) == 10 and len(rows.held_out.token_ids) == 5 and rows.rejected == 3
    texts = [encoder.tokenizer.decode(ids) for ids in rows.mixed.token_ids]
    assert all("what is" in text for text in texts) and len(set(texts)) == 10
    again = encode_general(General(data=str(source), share=0.25, held_out_rows=5), 30, encoder, seed=2)
    assert again.mixed != rows.mixed


def test_what_is_measured_is_the_answer_without_a_thought_that_no_base_has_seen(base: Path, source: Path) -> None:
    encoder = encoder_of(base)
    rows = encode_general(General(data=str(source), share=0.5, held_out_rows=5), 4, encoder, seed=1)
    measured = [label for label in rows.held_out.labels[0] if label != IGNORED]
    assert encoder.tokenizer.decode(measured) == "Hi.<|im_end|>"
    trained = [label for label in rows.mixed.labels[0] if label != IGNORED]
    assert encoder.tokenizer.decode(trained).startswith("<think> </think>It is")


def test_a_reply_is_exact_where_greedy_decoding_says_the_same(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    prompt = torch.arange(10, 50).repeat(2, 1)
    said = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)
    said[1, -1] = (said[1, -1] + 1) % 500  # the last token is another
    labels = torch.cat([torch.full_like(prompt, IGNORED), said[:, 40:]], dim=1)
    batch = {"input_ids": said, "labels": labels, "attention_mask": torch.ones_like(said)}
    for share_prefix in (False, True):
        assert exact_rows(model, batch, share_prefix=share_prefix).tolist() == [True, False]


def test_only_short_replies_are_compared_word_for_word(base: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path / "long.jsonl", "It is. " * 40)
    rows = encode_general(General(data=str(source), share=0.25, held_out_rows=7), 30, encoder_of(base), seed=1)
    assert len(rows.held_out.token_ids) == 7 and len(rows.short.token_ids) == 2


def test_a_source_with_too_few_rows_is_refused(base: Path, source: Path) -> None:
    with pytest.raises(UsageError, match=r"has 35 rows that can be used, and .* is 35"):
        encode_general(General(data=str(source), share=0.1, held_out_rows=35), 30, encoder_of(base), seed=1)


def test_a_run_says_what_was_forgotten_and_can_fail_for_it(base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()])

    def run(name: str, most: float, **other: Any) -> dict[str, Any]:
        source = write_source(tmp_path / f"{name}.jsonl", "It is 7.")
        recipe = Recipe.model_validate(
            {
                "schema": "recipe/v1",
                "base": str(base),
                "site": "home",
                "data": str(tmp_path / "train.jsonl"),
                "out": str(tmp_path / name),
                "training": {"steps": 16, "batch_rows": 2, "learning_rate": 0.02, "warmup_steps": 0},
                "general": {"data": str(source), "share": 0.02 if other else 0.5, "held_out_rows": 5, "max_rise": most},
                **other,
            }
        )
        train_run(recipe, progress=ProgressBar(io.StringIO()))
        return json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))["general"]

    learnt = run("learnt", 0.0)
    assert learnt["rows"] == 3 and learnt["rejected"] == 3 and learnt["loss_after"] < learnt["loss_before"]
    assert (learnt["short"], learnt["exact_before"]) == (5, 0)
    with pytest.raises(GateError, match=r"the loss on 5 general rows rose by [\d.]+ nats a token"):
        run("forgotten", 0.1, start_from=str(tmp_path / "learnt"))
    assert (tmp_path / "forgotten" / "run.json").exists()  # finished, and there to be looked at


def test_a_run_goes_on_only_with_the_same_general_data(source: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()])
    general = write_source(tmp_path / "general.jsonl", "Hi.")
    plain = {
        "schema": "recipe/v1",
        "base": "starter",
        "site": "home",
        "data": str(tmp_path / "train.jsonl"),
        "out": str(tmp_path / "run"),
        "general": {"data": str(general), "share": 0.5},
        "training": {"steps": 4},
    }
    recipe = Recipe.model_validate(plain)
    open_run(recipe, tmp_path / "run", resume=False)
    (tmp_path / "run.part" / "checkpoints" / "checkpoint-2").mkdir()
    open_run(recipe, tmp_path / "run", resume=True)
    write_source(general, "Ho.")
    with pytest.raises(UsageError, match=r"general\.jsonl changed since"):
        open_run(recipe, tmp_path / "run", resume=True)
