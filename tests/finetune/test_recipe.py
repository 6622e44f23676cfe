from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.site import load_site
from devices.yaml_file import shipped_names
from edge_agent.run_facts import read_run_facts
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of, format_digest
from finetune.recipe import ADAPTERS_FOLDER, RECIPES_FOLDER, SEVEN_PROJECTIONS, load_recipe

SMALL = """\
schema: recipe/v1
base: starter
site: home
data: rows.jsonl
out: runs/x
lora:
  rank: 8
training:
  steps: 10
  learning_rate: 1e-3
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_names(RECIPES_FOLDER))
def test_shipped_recipes_load(name):
    recipe = load_recipe(name)
    refunds = "finetune/examples/refunds.yaml"  # toolsets of the checkout
    own = {"own_smollm2": refunds, "support_own": refunds, "database_own": "finetune/examples/shop_database.yaml"}
    assert recipe.site == ("home" if recipe.any_site else own.get(name, name.partition("_")[0]))
    assert recipe.any_site == name.startswith("any_") == (recipe.generate.sites is not None)
    assert recipe.out == f"runs/{name}"


@pytest.mark.parametrize("run", sorted(ADAPTERS_FOLDER.iterdir()), ids=lambda run: run.name)
def test_shipped_adapters_are_small_and_know_how_sites_are_written_down_now(run):
    facts, recipe = read_run_facts(run), load_recipe(run / "recipe.yaml")
    template = load_template(facts.template)
    if recipe.any_site:
        assert facts.any_site == format_digest(template), "train it again, or take it out"
    else:
        assert facts.contract == contract_of(load_site(recipe.site), template).digest, "train it again, or take it out"
    assert facts.base == recipe.base and (run / "README.md").is_file()
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 20 * 2**20
    going_on = load_recipe("home_smollm2", [f"start_from={run.name}"])
    assert going_on.first_run == run and going_on.lora == recipe.lora


def test_every_family_has_a_recipe():
    templates = {load_recipe(name).template for name in shipped_names(RECIPES_FOLDER)}
    assert templates == {"llama3", "mistral", "phi3", "chatml", "gemma"}


def test_defaults_are_filled_in_and_the_complete_recipe_loads_again(tmp_path):
    recipe = load_recipe(written(tmp_path, SMALL))
    assert recipe.lora.targets == SEVEN_PROJECTIONS
    assert (recipe.quantization, recipe.compute_dtype, recipe.training.optimizer) == ("nf4", "auto", "paged_adamw_8bit")
    complete = tmp_path / "complete.yaml"
    complete.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(complete) == recipe
    assert "share_prefix: true" in complete.read_text()


@pytest.mark.parametrize(
    ("before", "after", "line", "message", "hint"),
    [
        ("rank: 8", "rnak: 8", 7, "lora.rnak: unknown key 'rnak'", "did you mean rank?"),
        ("steps: 10", "steps: ten", 9, "training.steps: Input should be a valid integer", ""),
        ("steps: 10", "steps: 0", 9, "training.steps: Input should be greater than 0", ""),
        ("  learning_rate: 1e-3", "  learning_rate: '1e-3'", 10, "training.learning_rate: Input should be a valid", ""),
        ("data: rows.jsonl\n", "", 1, "data: Field required", ""),
        ("schema: recipe/v1", "schema: recipe/v2", 1, "schema: Input should be 'recipe/v1'", ""),
        ("steps: 10", "steps: 10\n  epochs: 1", 8, "training: give either epochs or steps", ""),
        ("steps: 10", "steps: 10\n  packing: true", 8, "training: packing and share_prefix exclude each other", ""),
        ("steps: 10", "steps: 10\n  patience: 2", 8, "training: patience needs held_out_rows to measure on", ""),
        ("  rank: 8", "  rank: 8\n lora", 8, "not YAML", ""),
    ],
)
def test_a_broken_recipe_gives_file_and_line(tmp_path, before, after, line, message, hint):
    path = written(tmp_path, SMALL.replace(before, after))
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")
    assert caught.value.hint == hint


def test_overrides_go_through_the_same_checks(tmp_path):
    path = written(tmp_path, SMALL)
    recipe = load_recipe(path, ["training.steps=20", "lora.dropout=0.05", "seed=7", "lora.targets=[q_proj, v_proj]"])
    assert (recipe.training.steps, recipe.lora.dropout, recipe.seed) == (20, 0.05, 7)
    assert recipe.lora.targets == ("q_proj", "v_proj")
    assert load_recipe(path, ["training.epochs=2"]).training.steps is None


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("training.stepz=2", "override training.stepz=2: unknown key 'stepz'", "did you mean steps?"),
        ("lorra.rank=2", "override lorra.rank=2: unknown key 'lorra'", "did you mean lora?"),
        ("training.steps=abc", "override training.steps=abc: Input should be a valid integer", ""),
        ("lora.dropout=0.9", "override lora.dropout=0.9: Input should be less than or equal to 0.5", ""),
        ("seed.x=1", "override seed.x=1: seed holds a value and no keys", ""),
        ("seed=[", "override seed=[: the value is not YAML", ""),
        ("steps", "override 'steps' is not key=value", "for example training.steps=20"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message, hint):
    text = SMALL if not override.startswith("seed.") else SMALL + "seed: 3\n"
    with pytest.raises(UsageError) as caught:
        load_recipe(written(tmp_path, text), [override])
    assert str(caught.value) == message
    assert caught.value.hint == hint


def test_an_unknown_recipe_has_a_near_name():
    with pytest.raises(UsageError, match="no recipe is called 'hom'") as caught:
        load_recipe("hom")
    assert caught.value.hint == "did you mean home?"
