"""The whole path on real parts, with sockets blocked: data → QLoRA → merge → GGUF → quantize → bundle → flash → agent.

Training takes a few steps only: what is tested is that the parts fit, and that each failure is one clear line. How good
the model is, the demo measures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import edgewright
from devices.site.site import SITES_FOLDER, load_site
from edge_agent.agent.session import prime_box
from edge_agent.bundle import SMOKE_RECORD, open_bundle
from edge_agent.engine.cache_file import STATE_FILE
from edge_agent.evaluation.cases import read_cases
from edge_agent.evaluation.smoke import read_smoke
from export.cli import TASK_SEED
from export.gates.smoke import SMOKE_CASES, asked_in, words_of
from finetune.data.generator import generate_cases
from finetune.recipe import STARTER_FOLDER
from tests.tiny_bundle import rewrite_manifest

STEPS = "training.steps=3"
TASKS = ["--tasks", "6"]


@pytest.fixture(scope="module")
def path_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, run, bundle and box, each made by its command."""
    folder = tmp_path_factory.mktemp("path")
    assert edgewright.main(["data", "generate", "-n", "12", "--seed", "1", "--out", f"{folder}/train.jsonl"]) == 0
    assert edgewright.main(["train", "home", f"data={folder}/train.jsonl", f"out={folder}/run", STEPS]) == 0
    export = ["export", f"{folder}/run", "--quant", "F16,Q8_0,Q4_K_M", "--out", f"{folder}/bundle", *TASKS]
    assert edgewright.main([*export, "--work", f"{folder}/gguf"]) == 0
    assert edgewright.main(["flash", f"{folder}/bundle", f"{folder}/box"]) == 0
    return folder


def answers(capsys: pytest.CaptureFixture[str], folder: Path, *asks: str, extra: tuple[str, ...] = ()) -> list[dict]:  # type: ignore[type-arg]
    file = folder / "asks.txt"
    file.write_text("\n".join(asks), encoding="utf-8")
    capsys.readouterr()
    run = ["run", f"{folder}/box", "--site", "home", "--ask-file", str(file), "--json", *extra]
    assert edgewright.main(run) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_flashed_box_answers_in_the_promised_form(path_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = json.loads((path_folder / "bundle" / "export.json").read_text(encoding="utf-8"))
    assert export["gates"]["endings"]["Q4_K_M"] == {"ended": 8, "replies": 8}
    results = answers(capsys, path_folder, "turn the kitchen light on", "hello")
    assert [result["ask"] for result in results] == ["turn the kitchen light on", "hello"]
    for result in results:
        assert set(result) == {"ask", "answer", "thought", "actions", "state", "timings"}
        assert set(result["timings"]) == {"total_s", "prefill_s", "decode_s", "model_steps", "tokens"}
        assert len(result["state"]) == 14 and result["answer"]
        for action in result["actions"]:
            assert set(action) == {"device", "action", "input", "status"}
    assert (path_folder / "box" / "state" / "journal.sqlite").is_file()


def test_a_conversation_is_held_in_one_world(path_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = ["turn the kitchen light on", "is it on?"]
    results = answers(capsys, path_folder, json.dumps(turns), "hello")
    assert [result["ask"] for result in results] == [*turns, "hello"]
    for line, problem in (
        ('["a",', "asks.txt:2: not JSON"),
        ("[]", "asks.txt:2: a conversation is a list of requests"),
    ):
        (path_folder / "asks.txt").write_text(f"hello\n{line}\n", encoding="utf-8")
        assert edgewright.main(["run", f"{path_folder}/box", "--ask-file", f"{path_folder}/asks.txt"]) == 2
        assert problem in capsys.readouterr().err


def test_on_a_site_that_is_new_to_it_a_model_is_tried_once(
    path_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, site = shutil.copytree(path_folder / "box", tmp_path / "box", symlinks=True), tmp_path / "home.yaml"
    text = (SITES_FOLDER / "home.yaml").read_text(encoding="utf-8")
    site.write_text(
        text.replace("devices:\n", "devices:\n  attic_lamp: {model: dimmable_light}\n", 1), encoding="utf-8"
    )
    run = ["run", str(box), "--site", str(site), "--ask", "turn the attic lamp on", "--json"]
    assert edgewright.main([*run, "--accept", "1"]) == 4
    refused = capsys.readouterr().err
    assert "home is new to bundle: trying it" in refused and "of 40 generated cases done right" in refused
    assert "does not know home well enough" in refused and "--accept" in refused
    assert edgewright.main([*run, "--accept", "0"]) == 0
    captured = capsys.readouterr()
    assert "trying it" not in captured.err and "attic_lamp" in json.loads(captured.out)["state"]


def test_a_flashed_box_is_primed(path_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, box, bare = f"{path_folder}/bundle", tmp_path / "box", tmp_path / "bare"
    assert edgewright.main(["flash", "--no-selftest", bundle, str(box)]) == 0
    assert "evaluated and kept" in capsys.readouterr().err
    assert (box / "state" / STATE_FILE).is_file() and prime_box(box)
    assert edgewright.main(["flash", "--no-selftest", "--no-prime", bundle, str(bare)]) == 0
    assert not (bare / "state").exists() and not prime_box(bare)
    (bare / "state" / STATE_FILE).unlink()
    (bare / "state" / STATE_FILE).mkdir()  # cannot be written: the box works all the same
    assert edgewright.main(["flash", "--no-selftest", bundle, str(bare)]) == 0


def test_a_bundle_has_smoke_cases_that_nothing_has_seen(path_folder: Path) -> None:
    smoke = read_smoke(open_bundle(path_folder / "bundle"))
    assert smoke and len(smoke.cases) == SMOKE_CASES
    assert {case.kind for case in smoke.cases} == {case.kind for case in generate_cases(load_site("home"), 300, 1)}
    seen = {words_of(case.ask) for case in generate_cases(load_site("home"), 12, TASK_SEED)}
    seen |= set(asked_in(path_folder / "train.jsonl"))
    assert not seen & {words_of(case.ask) for case in smoke.cases}
    export = json.loads((path_folder / "bundle" / "export.json").read_text(encoding="utf-8"))
    assert export["gates"]["smoke"]["cases"] == SMOKE_CASES


def test_a_box_does_what_was_recorded(path_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert edgewright.main(["selftest", f"{path_folder}/box", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "cases": SMOKE_CASES, "differing": [], "allowed": 1, "other_words": 0, "is_passed": True,
    }  # fmt: skip


def change_bundle(folder: Path, copy: Path, **record: object) -> Path:
    """Copy a bundle as if its model had said something else at export; without anything, as if nothing was recorded."""
    shutil.copytree(folder / "bundle", copy)
    path = copy / SMOKE_RECORD
    lines = [json.dumps(json.loads(line) | record) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not record:
        path.unlink()
    rewrite_manifest(copy)
    return copy


def test_a_bundle_that_does_something_else_is_not_made_current(
    path_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = tmp_path / "box"
    assert edgewright.main(["flash", f"{path_folder}/bundle", str(box)]) == 0
    assert f"self-test: {SMOKE_CASES} cases, 0 not as recorded" in capsys.readouterr().err
    before = {path: path.read_bytes() for path in box.rglob("*") if path.is_file()}
    claim = {"commands": [{"device": "porch_light", "action": "on", "input": {}}], "statuses": ["refused"]}
    other = str(change_bundle(path_folder, tmp_path / "other", **claim))
    assert edgewright.main(["flash", other, str(box)]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "home-5000-" in error and "instead of porch_light.on() refused" in error
    assert {path: path.read_bytes() for path in box.rglob("*") if path.is_file()} == before
    assert edgewright.main(["selftest", other]) == 5

    assert edgewright.main(["flash", "--no-selftest", "--no-prime", other, str(box)]) == 0
    assert "self-test left out" in capsys.readouterr().err
    unrecorded = str(change_bundle(path_folder, tmp_path / "unrecorded"))
    assert edgewright.main(["flash", "--no-prime", unrecorded, str(box)]) == 0
    assert "nothing was tested" in capsys.readouterr().err


def test_each_request_meets_a_fresh_world(path_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = answers(capsys, path_folder, "turn the kitchen light on", "turn the kitchen light on")
    assert {key: first[key] for key in ("answer", "actions", "state")} == {
        key: second[key] for key in ("answer", "actions", "state")
    }


def test_evaluation_writes_both_reports(path_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = path_folder / "report"
    models = [f"{path_folder}/run", f"{path_folder}/gguf/model-Q4_K_M.gguf"]
    assert edgewright.main(["eval", *models, "--site", "home", "-n", "6", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["cases"] == 6 and [engine["role"] for engine in report["engines"]] == ["tuned", "quant"]
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert "Q4_K_M" in capsys.readouterr().out
    assert edgewright.main(["compare", str(out), str(out), "--fail-if-worse"]) == 0
    assert "0 gained, 0 lost" in capsys.readouterr().out


def test_an_evaluation_below_its_limit_fails(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{path_folder}/cache")
    (path_folder / "mine.yaml").write_text("- {ask: hello there, kind: chat, expect: {}}\n")
    words = ["eval", f"{path_folder}/bundle", "--cases", f"{path_folder}/mine.yaml", "--out", f"{path_folder}/own"]
    assert edgewright.main([*words, "--fail-under", "total=1", "--fail-under", "chat=0.5"]) == 0
    assert "own_cases.html" in capsys.readouterr().out
    for limit, code, said in (
        ("total=1.1", 5, "total is 100.0% (1 of 1), less than 110.0%"),
        ("totl=1", 2, "did you mean total?"),
        ("total", 2, "--fail-under total"),
    ):
        assert edgewright.main([*words, "--fail-under", limit]) == code
        assert said in capsys.readouterr().err


def test_a_model_is_evaluated_under_other_names_of_its_tools(path_folder: Path) -> None:
    out = path_folder / "renamed"
    model = f"{path_folder}/gguf/model-Q4_K_M.gguf"
    assert edgewright.main(["eval", model, "--site", "home", "-n", "6", "--renamed", "3", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["title"] == "home, tools renamed" and report["cases"] == 6
    actions = {command.action for case in read_cases(out / "cases.jsonl") for command in case.commands}
    assert actions and not actions & {name for device in load_site("home").devices.values() for name in device.actions}


def flip_byte(folder: Path) -> list[str]:
    shutil.copytree(folder / "bundle", folder / "flipped", dirs_exist_ok=True)
    model = folder / "flipped" / "model.gguf"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    return ["run", f"{folder}/flipped", "--ask", "hello"]


def cut_gguf(folder: Path) -> list[str]:
    whole = (folder / "gguf" / "model-Q4_K_M.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    return ["eval", f"{folder}/cut.gguf", "--out", f"{folder}/none"]


def break_site(folder: Path) -> list[str]:
    (folder / "bad.yaml").write_text(
        "schema: site/v1\nname: x\ntitle: x\ndevices: {a: {model: lamp}}\n", encoding="utf-8"
    )
    return ["devices", "list", "--site", f"{folder}/bad.yaml"]


def other_site(folder: Path) -> list[str]:
    text = "schema: site/v1\nname: x\ntitle: x\ndevices: {a: {model: siren}}\n"
    (folder / "other.yaml").write_text(text, encoding="utf-8")
    return ["run", f"{folder}/box", "--site", f"{folder}/other.yaml", "--ask", "hello"]


FAILURES: list[tuple[Callable[[Path], list[str]], int, str]] = [
    (break_site, 2, "bad.yaml:4"),
    (lambda folder: ["train", "home", "training.stepz=3"], 2, "training.stepz"),
    (cut_gguf, 4, "cut.gguf"),
    (flip_byte, 4, "model.gguf"),
    (other_site, 4, "where there is no siren_on"),
    (lambda folder: ["devices", "call", "kitchen_lamb", "on"], 2, "kitchen_lamb"),
    (lambda folder: ["devices", "call", "front_door", "unlock"], 4, "confirmation"),
    (lambda folder: ["run", f"{folder}/nothing", "--ask", "x"], 2, "no bundle"),
    (lambda folder: ["flash", f"{folder}/flipped", f"{folder}/box"], 4, "model.gguf"),
    (lambda folder: ["eval", f"{folder}/absent", "--out", f"{folder}/none"], 2, "absent is no model"),
    (
        lambda folder: ["eval", f"{folder}/run", "--cases", "x", "--renamed", "1", "--out", "y"],
        2,
        "makes its own cases",
    ),
    (lambda folder: ["data", "show", f"{folder}/absent.jsonl"], 2, "absent.jsonl"),
]


@pytest.mark.parametrize(("make", "code", "words"), FAILURES)
def test_each_failure_is_one_line_and_leaves_the_box_as_it_was(
    path_folder: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], list[str]],
    code: int,
    words: str,
) -> None:
    arguments = make(path_folder)
    before = sorted(path.name for path in (path_folder / "box" / "bundles").iterdir())
    current = (path_folder / "box" / "current").resolve()
    capsys.readouterr()
    assert edgewright.main(arguments) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and error.startswith("error: ")
    assert sorted(path.name for path in (path_folder / "box" / "bundles").iterdir()) == before
    assert (path_folder / "box" / "current").resolve() == current


def test_the_starter_fits_in_sixteen_megabytes() -> None:
    assert (STARTER_FOLDER / "model.safetensors").stat().st_size <= 16_000_000
    card = (STARTER_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "edgewright pretrain starter" in card and "Limits" in card
