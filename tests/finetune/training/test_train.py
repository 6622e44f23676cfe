import io
import json
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.progress import ProgressBar
from edge_agent.run_facts import read_run_facts
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of, format_digest
from edge_agent.wire.messages import Message
from finetune.data.encoded_rows import encode_rows
from finetune.data.generator import generate_any_site
from finetune.data.random_sites import Sites
from finetune.data.rows import IGNORED, Row, write_rows
from finetune.recipe import Lora, Recipe
from finetune.training.run_folder import part_of
from finetune.training.run_report import HEIGHT, WIDTH, plot_of
from finetune.training.train import Interrupted, train_run
from tests.tiny_base import make_tiny_base, tiny_conversations


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny matrices: more threads only wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_rows(path, [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()] * 2)
    return path


def recipe_for(base: Path, data: Path, out: Path, **training) -> Recipe:
    training = {"steps": 4, "batch_rows": 2, "learning_rate": 0.01, "warmup_steps": 0, "checkpoint_every": 2} | training
    return Recipe.model_validate(
        {
            "schema": "recipe/v1",
            "base": str(base),
            "site": "home",
            "data": str(data),
            "out": str(out),
            "training": training,
        }
    )


def adapter_of(out: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(out / "adapter" / "adapter_model.safetensors")


def test_rows_of_any_site_need_only_start_as_all_do(base, tmp_path):
    path = tmp_path / "any.jsonl"
    rows = list(generate_any_site(8, 3, Sites(devices=(2, 3), rows=4, long_rows=0)))
    write_rows(path, rows)
    recipe = recipe_for(base, path, tmp_path / "run", steps=1).model_copy(update={"any_site": True})
    facts = train_run(recipe, progress=ProgressBar(io.StringIO()))
    assert facts.any_site == format_digest(load_template("chatml"))
    assert facts.contract == contract_of(load_site("home"), load_template("chatml")).digest
    with pytest.raises(UsageError, match="not this site's"):
        train_run(recipe_for(base, path, tmp_path / "one"), progress=ProgressBar(io.StringIO()))
    path.write_text(path.read_text(encoding="utf-8").replace("Act only when", "Act  only when"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"at character \d+ it has ' only when"):
        train_run(recipe.model_copy(update={"out": str(tmp_path / "other")}), progress=ProgressBar(io.StringIO()))


def test_training_goes_on_from_the_adapter_of_another_run(base, data, tmp_path):
    import torch

    train_run(recipe_for(base, data, tmp_path / "first", steps=3), progress=ProgressBar(io.StringIO()))
    later = recipe_for(base, data, tmp_path / "later", steps=1, learning_rate=1e-9)
    later = later.model_copy(update={"start_from": str(tmp_path / "first")})
    facts = train_run(later, progress=ProgressBar(io.StringIO()))
    ours, theirs = adapter_of(tmp_path / "later"), adapter_of(tmp_path / "first")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert facts.losses[0][1] < read_run_facts(tmp_path / "first").losses[0][1] - 0.2
    wider = later.model_copy(update={"lora": Lora(rank=4), "out": str(tmp_path / "wider")})
    with pytest.raises(UsageError, match="is another than this recipe's") as error:
        train_run(wider, progress=ProgressBar(io.StringIO()))
    assert "r 16" in error.value.hint
    missing = later.model_copy(update={"start_from": str(tmp_path / "none"), "out": str(tmp_path / "lost")})
    with pytest.raises(UsageError, match="cannot read"):
        train_run(missing, progress=ProgressBar(io.StringIO()))


def test_the_plot_has_every_loss_between_its_axes():
    losses = [(step, 3.0 / step) for step in range(1, 201)]
    plot = plot_of(losses, [(100, 0.5), (200, 9.0)])
    points = [tuple(map(float, point.split(","))) for point in plot.losses.split()]
    assert len(points) == 200 and all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in [*points, *plot.dots])
    assert points[0][1] < points[10][1] < points[-1][1]  # a lower loss stands lower
    assert [text for _, text in plot.steps] == ["0", "50", "100", "150", "200"] and len(plot.levels) == 5
    assert plot_of([(1, 0.0)], []).dots == []


class StopAt(ProgressBar):
    """Presses Ctrl-C once a step is done."""

    def __init__(self, step: int) -> None:
        super().__init__(io.StringIO())
        self._stop = step

    def show(self, done: int, total: int, text: str) -> None:
        if done == self._stop:
            raise KeyboardInterrupt


def test_a_run_learns_and_leaves_its_folder(base, data, tmp_path):
    import torch

    shown = io.StringIO()
    facts = train_run(recipe_for(base, data, tmp_path / "run", steps=4), progress=ProgressBar(shown))
    out = tmp_path / "run"
    assert [step for step, _ in facts.losses] == [1, 2, 3, 4]
    assert facts.losses[-1][1] < facts.losses[0][1] - 0.2
    weights = adapter_of(out)
    assert len(weights) == 2 * 7 * 2
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert all(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
    run = json.loads((out / "run.json").read_text())
    assert run["schema"] == "run/v1"
    assert run["contract"] == contract_of(load_site("home"), load_template("chatml")).digest
    assert run["data"]["rows"] == 6
    assert run["losses"] == [list(pair) for pair in facts.losses]
    assert "model.safetensors" in run["base_sha256"]
    names = {
        "site.yaml",
        "recipe.yaml",
        "sample.jsonl",
        "run.json",
        "report.html",
        "metrics.jsonl",
        "adapter",
        "checkpoints",
    }
    assert names == {path.name for path in out.iterdir()}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"step", "loss", "grad_norm", "learning_rate", "tokens_per_s", "memory_mib"}
    assert not part_of(out).exists()
    for word in ("trained parameters", "device cpu", "tokens an epoch", "4 steps", "to go", "step 4/4"):
        assert word in shown.getvalue()


def test_tensorboard_gets_the_numbers_of_every_step(base, data, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    recipe = recipe_for(base, data, tmp_path / "run", tensorboard=True, held_out_rows=2, held_out_every=2)
    facts = train_run(recipe, progress=StopAt(-1))
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    content, numbers = file.read_bytes(), {}
    while content:  # a record is its length in 8 bytes, a checksum in 4, the event, a checksum in 4
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        numbers |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + size :]
    assert {step: loss for (name, step), loss in numbers.items() if name == "loss"} == pytest.approx(
        dict(facts.losses), rel=1e-4
    )
    assert [step for name, step in numbers if name == "held_out_loss"] == [2, 4]


def test_an_interrupted_run_resumes_to_the_same_weights(base, data, tmp_path):
    import torch

    straight = train_run(recipe_for(base, data, tmp_path / "straight", steps=6), progress=StopAt(-1))
    recipe = recipe_for(base, data, tmp_path / "cut", steps=6)
    with pytest.raises(Interrupted, match="after step 5"):
        train_run(recipe, progress=StopAt(5))
    assert not Path(recipe.out).exists()
    with pytest.raises(UsageError, match="interrupted run with checkpoint-4"):
        train_run(recipe, progress=StopAt(-1))
    with pytest.raises(UsageError, match=r"another training\.learning_rate"):
        train_run(recipe_for(base, data, tmp_path / "cut", steps=6, learning_rate=0.02), resume=True)
    resumed = train_run(recipe, resume=True, progress=StopAt(-1))
    assert [step for step, _ in resumed.losses] == [1, 2, 3, 4, 5, 6]
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 6
    assert dict(resumed.losses) == pytest.approx(dict(straight.losses), abs=1e-3)
    for name, weight in adapter_of(tmp_path / "straight").items():
        assert torch.allclose(weight, adapter_of(tmp_path / "cut")[name], atol=1e-4), name
    with pytest.raises(UsageError, match="there already"):
        train_run(recipe)


def test_the_adapter_that_did_best_on_held_out_rows_is_kept(base, data, tmp_path):
    shown = io.StringIO()
    settings = {"steps": 20, "learning_rate": 0.9, "schedule": "constant", "held_out_rows": 2, "checkpoint_every": 1}
    recipe = recipe_for(base, data, tmp_path / "run", held_out_every=1, patience=1, **settings)
    facts = train_run(recipe, progress=ProgressBar(shown))
    losses = dict(facts.held_out_losses)
    best = min(losses, key=losses.__getitem__)
    assert list(losses) == list(range(1, best + 2)) and best + 1 < 20
    assert "has not fallen for 1 measurements" in shown.getvalue()
    at_best = recipe_for(base, data, tmp_path / "best", **settings)
    with pytest.raises(Interrupted):
        train_run(at_best, progress=StopAt(best + 1))
    kept, straight = adapter_of(tmp_path / "run"), adapter_of_checkpoint(part_of(tmp_path / "best"), best)
    assert all(weight.equal(straight[name]) for name, weight in kept.items())  # measuring changed nothing
    assert facts.data.rows == 4 and not (tmp_path / "run" / "best").exists()


def adapter_of_checkpoint(part: Path, step: int) -> dict:
    from safetensors.torch import load_file

    return load_file(part / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors")


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_other_kinds_of_lora_train(base, data, tmp_path, kind):
    recipe = recipe_for(base, data, tmp_path / "run", steps=2)
    recipe = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={kind: True})})
    facts = train_run(recipe, progress=StopAt(-1))
    assert facts.losses[1][1] < facts.losses[0][1]
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config[f"use_{kind}"]
    assert any("magnitude" in name for name in adapter_of(tmp_path / "run")) == (kind == "dora")


def test_packed_rows_give_the_loss_of_single_rows(base, data, tmp_path):
    alone = train_run(recipe_for(base, data, tmp_path / "a", steps=1, batch_rows=6), progress=StopAt(-1))
    tokens = max(encoded_lengths(base, data))
    packed = recipe_for(
        base, data, tmp_path / "b", steps=1, batch_rows=6, packing=True, share_prefix=False, max_tokens=3 * tokens
    )
    assert train_run(packed, progress=StopAt(-1)).losses[0][1] == pytest.approx(alone.losses[0][1], abs=2e-3)


def test_batches_in_parts_train_as_whole_ones_do(base, data, tmp_path):
    settings = {"steps": 3, "batch_rows": 3, "accumulate": 2}
    whole = train_run(recipe_for(base, data, tmp_path / "whole", **settings), progress=StopAt(-1))
    tokens = max(encoded_lengths(base, data))
    cut = train_run(recipe_for(base, data, tmp_path / "cut", batch_tokens=tokens, **settings), progress=StopAt(-1))
    assert dict(cut.losses) == pytest.approx(dict(whole.losses), abs=1e-2)  # Adam makes much of rounding
    for name, weight in adapter_of(tmp_path / "whole").items():
        assert is_near(weight, adapter_of(tmp_path / "cut")[name]), name


def is_near(one, other) -> bool:
    """Return whether adapters are alike but for what Adam makes of rounding: it takes whole steps by a sign."""
    return bool((one - other).norm() < 0.2 * one.norm())


def encoded_lengths(base: Path, data: Path) -> list[int]:
    from transformers import AutoTokenizer

    contract = contract_of(load_site("home"), load_template("chatml"))
    return [len(ids) for ids in encode_rows(data, contract, AutoTokenizer.from_pretrained(base), 4096).token_ids]


def test_sharing_the_prefix_changes_neither_loss_nor_gradient(base):
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.training.prefix_loss import shared_prefix, summed_loss

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.randint(0, 500, (3, 90), generator=torch.Generator().manual_seed(0))
    ids[:, :60] = ids[0, :60]
    labels = ids.clone()
    labels[:, :65] = IGNORED
    labels[2, 80:] = IGNORED
    mask = (torch.arange(90) < torch.tensor([[90], [90], [80]])).long()
    batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    assert shared_prefix(batch) >= 59
    results = []
    for share in (False, True):
        model.zero_grad()
        loss = summed_loss(model, batch, share_prefix=share)
        loss.backward()
        results.append((loss.detach(), [weight.grad.clone() for weight in model.parameters()]))
    reference = model(input_ids=ids, attention_mask=mask, labels=labels).loss * (labels[:, 1:] != IGNORED).sum()
    assert torch.allclose(results[0][0], reference, rtol=1e-4)
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-5)
    for plain, shared in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(plain, shared, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


def test_end_of_turn_is_trained_and_long_rows_are_dropped_whole(base, data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    contract = contract_of(load_site("home"), load_template("chatml"))
    rows = encode_rows(data, contract, tokenizer, 4096)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert [row.count(end) for row in rows.labels] == [2, 2, 1] * 2
    lengths = [len(ids) for ids in rows.token_ids]
    shorter = encode_rows(data, contract, tokenizer, max(lengths) - 1)
    assert shorter.dropped == lengths.count(max(lengths))
    assert max(len(ids) for ids in shorter.token_ids) < max(lengths)
    with pytest.raises(UsageError, match="all 6 rows are over") as error:
        encode_rows(data, contract, tokenizer, 20)
    assert error.value.hint == f"training.max_tokens={max(lengths)} takes all of them"


def test_a_row_with_another_system_text_is_refused(base, tmp_path):
    path = tmp_path / "train.jsonl"
    write_rows(path, [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()])
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("Think first, then", "Think  first, then")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=r"train\.jsonl:2: the system text is not this site's: at character \d+"):
        train_run(recipe_for(base, path, tmp_path / "run"), progress=StopAt(-1))
    assert not part_of(tmp_path / "run").exists()


def test_a_rendered_text_is_not_rendered_twice(base, tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()]
    system, ask, *rest = rows[1].messages
    rows[1] = Row(("tiny",), (system, Message("user", f"<|im_start|>user\n{ask.text}"), *rest))
    write_rows(path, rows)
    with pytest.raises(UsageError, match=r"train\.jsonl:2: a user text has the special token <\|im_start\|>"):
        train_run(recipe_for(base, path, tmp_path / "run"), progress=StopAt(-1))


def test_a_template_that_begins_the_text_twice_is_refused(base, data):
    from dataclasses import replace

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, bos_token="<|endoftext|>")
    contract = contract_of(load_site("home"), load_template("chatml"))
    source = "<|endoftext|><|endoftext|>" + contract.template.source
    twice = replace(contract, template=replace(contract.template, source=source))
    with pytest.raises(UsageError, match=r"begins the text with <\|endoftext\|> twice"):
        encode_rows(data, twice, tokenizer, 4096)


def test_an_unknown_target_is_refused_with_those_there_are(base, data, tmp_path):
    recipe = recipe_for(base, data, tmp_path / "run")
    recipe = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"targets": ("qkv_proj",)})})
    with pytest.raises(UsageError, match="no linear layer 'qkv_proj'") as caught:
        train_run(recipe, progress=StopAt(-1))
    assert "q_proj" in caught.value.hint


def test_a_3b_model_trains_less_than_one_percent():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from finetune.recipe import Lora
    from finetune.training.quantized_base import add_adapter, count_parameters

    # Source: config.json of meta-llama/Llama-3.2-3B
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = add_adapter(LlamaForCausalLM(config), Lora())
    trained, total = count_parameters(model)
    assert trained == 24_313_856
    assert 3.2e9 < total < 3.3e9
    assert trained / total < 0.01
