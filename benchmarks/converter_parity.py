"""Our converter against what others wrote: transformers' GGUF loader, and llama.cpp's convert_hf_to_gguf.py.

    python -m benchmarks.converter_parity --vocabularies VOCABULARIES --oracle DIR --python PATH

VOCABULARIES has llama.cpp's ggml-vocab-*.gguf and their .inp files, DIR is a llama.cpp source tree, and PATH the Python
of an environment of its own, since llama.cpp's converter wants an older transformers:

    python3.11 -m venv UPSTREAM
    UPSTREAM/bin/pip install torch==2.13.0 transformers==4.57.6 "numpy~=2.2.6" safetensors pyyaml
    UPSTREAM/bin/pip install sentencepiece==0.2.0 "protobuf<5"

Every family whose vocabulary llama.cpp has is made small, with random weights and that vocabulary. With --oracle, the
tables of docs/parity.md and a JSON file with every key are written. A difference that EXPECTED does not list is exit
code 5.

Not compared: quantized types (tests do that), adapters, other vocabularies than the four, a real model's weights.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import unicodedata
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.errors import EdgeError, GateError, UnavailableError, UsageError
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.wire.chat_template import load_template
from export.convert.gguf_writer import convert
from export.gates.parity import NASTY_TEXTS
from export.llama_cpp_file import LlamaFile
from tests.families import FAMILIES, PUBLISHED, make_base
from tests.tiny_base import tiny_texts

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULT = ROOT / "docs" / "parity.md", ROOT / "benchmarks" / "results" / "converter-parity.json"
BEGIN, END = "<!-- begin: benchmarks/converter_parity.py -->\n", "<!-- end -->\n"
HEAD = "family|weights equal|mean KL|tensors equal|but for|keys equal|texts cut right: ours|theirs|mean KL in llama.cpp"
COMMAND = "python -m benchmarks.converter_parity --vocabularies VOCABULARIES --oracle DIR --python PATH"
TEXT_TOKENS, SCORED_POSITIONS = 640, 64  # beyond the 512 tokens from which Phi-3 128k has its long factors here
MEAN_KL_LIMIT = 1e-6  # nats; nothing is rounded between the two sides but RoPE factors, which makes 4e-8
FACTOR_ROUNDING = 1e-6  # of the largest one; RoPE factors are computed in float64 here and in float32 there
BLANK_RUNS = "b".join(" " * blanks for blanks in range(70))
SAME_WITHOUT = "what llama.cpp takes without the key, too"
# Key, how it differs, why that is meant.
EXPECTED = (
    ("general.type", "only theirs*", "tells people what is in the file"),
    ("general.size_label", "only theirs*", "tells people how large the model is"),
    ("tokenizer.chat_template", "*", "the template that training used"),
    ("tokenizer.ggml.add_bos_token", "*, False here, *", "the template writes it where a family wants one"),
    ("tokenizer.ggml.eos_token_id", "differs*", "the template's end-of-turn token, which ends a reply"),
    ("tokenizer.ggml.eot_token_id", "only ours*", "the template's end-of-turn token, which ends a reply"),
    ("tokenizer.ggml.add_sep_token", "only theirs, * False there", "for pairs of texts, which a chat does not have"),
    ("tokenizer.ggml.unknown_token_id", "only theirs, * 0 there", SAME_WITHOUT),
    ("tokenizer.ggml.token_type", "differs, 1 differ, first at 0: 2 here, 1 differ, first at 0: 3 there",
     "`<unk>` is unknown or control; llama.cpp treats both alike when it cuts and prints text"),
    ("tokenizer.ggml.scores", "differs*", "only their order counts, which is the same (compared)"),
    ("tokenizer.ggml.add_space_prefix", "only ours*", "what tokenizer.json says; llama.cpp takes True without it"),
    ("*.attention.key_length", "only ours*", SAME_WITHOUT),
    ("*.attention.value_length", "only ours*", SAME_WITHOUT),
    ("*.rope.dimension_count", "only ours*", SAME_WITHOUT),
    ("*.vocab_size", "only ours*", SAME_WITHOUT),
    ("phi3.context_length", "differs*", "ends at the window, since llama.cpp lets each token see all before it"),
    ("phi3.attention.sliding_window", "only theirs*", "llama.cpp sets it to 0 for this family (src/models/phi3.cpp)"),
    ("phi3.rope.scaling.original_context_length", "only theirs*", "matters to a model with long factors only"),
)  # fmt: skip
# Run by the other Python: tokens, scores and types of a GGUF vocabulary as a tokenizer.model; the types' numbers agree.
MAKE_TOKENIZER_MODEL = """
import sys, gguf
from sentencepiece import sentencepiece_model_pb2
fields = gguf.GGUFReader(sys.argv[1]).fields
model = sentencepiece_model_pb2.ModelProto()
model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
for row in zip(*(fields["tokenizer.ggml." + key].contents() for key in ("tokens", "scores", "token_type"))):
    model.pieces.add(**dict(zip(("piece", "score", "type"), row)))
open(sys.argv[2], "wb").write(model.SerializeToString())
"""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file that was just written."""
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return plain


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a GGUF file's tensors and its metadata, by name."""
    import gguf

    reader = gguf.GGUFReader(path)
    metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return {tensor.name: tensor for tensor in reader.tensors}, metadata


def mean_kl(expected: Any, actual: Any) -> float:
    """Return the mean KL(expected ‖ actual) in nats of log-probabilities, float32 (position, vocabulary)."""
    import numpy

    one, other = (side.astype(numpy.float64) for side in (expected, actual))
    one, other = (side - numpy.log(numpy.exp(side).sum(axis=1, keepdims=True)) for side in (one, other))
    return float((numpy.exp(one) * (one - other)).sum(axis=1).mean())


def compare_loader(base: Path, file: Path, text: str) -> dict[str, Any]:
    """Return how the model that transformers loads from our file differs from the base: weights, logits on a text.

    Its loader leaves out how positions are scaled, so the base's go back into its configuration first.

    Raises:
        GateError: it refuses the file.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    ours = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        thetas = [one.rope_parameters["rope_theta"] for one in (config, ours.config)]
        for key in ("rope_parameters", "original_max_position_embeddings"):
            if hasattr(ours.config, key):
                setattr(config, key, getattr(ours.config, key))
        where = {"gguf_file": file.name, "config": config, "dtype": torch.float32}
        theirs = AutoModelForCausalLM.from_pretrained(file.parent, **where).eval()
    except (NotImplementedError, ValueError) as error:
        raise GateError(f"transformers does not load the file: {error}") from error
    expected, actual = ours.state_dict(), theirs.state_dict()
    differences = {}
    for name in expected.keys() & actual.keys():
        rounded = expected[name].half().float() if expected[name].ndim > 1 else expected[name]
        differences[name] = float((rounded - actual[name]).abs().max())
    ids = AutoTokenizer.from_pretrained(base).encode(text, add_special_tokens=False)[:TEXT_TOKENS]
    with torch.inference_mode():
        logits = [model(torch.tensor([ids]), logits_to_keep=SCORED_POSITIONS).logits[0] for model in (ours, theirs)]
    kl = mean_kl(*(torch.log_softmax(one, dim=-1).numpy() for one in logits))
    problems = [f"transformers: {name} is in one only" for name in expected.keys() ^ actual.keys()]
    problems += [f"transformers: {name} differs by {largest:g}" for name, largest in differences.items() if largest]
    problems += [f"transformers: rope_theta is {thetas}"] if len(set(thetas)) > 1 else []
    problems += [f"transformers: mean KL {kl:.2g} nats"] if not kl < MEAN_KL_LIMIT else []
    return {"tensors": len(differences), "largest_difference": max(differences.values()), "mean_kl": kl,
            "equal": sum(not largest for largest in differences.values()), "problems": problems}  # fmt: skip


def copy_for_upstream(base: Path, copy: Path) -> None:
    """Make a folder as older transformers write it, of the same weights and the same tokenizer.json."""
    copy.mkdir()
    for path in base.iterdir():
        (copy / path.name).symlink_to(path.resolve())
    config, tokenizer = read_json(base / "config.json"), read_json(base / "tokenizer_config.json")
    rope = config.pop("rope_parameters")
    config["rope_theta"], kind = rope.pop("rope_theta"), rope.pop("rope_type")
    rope = {key: value for key, value in rope.items() if key not in config and key != "partial_rotary_factor"}
    config["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    added_tokens = read_json(base / "tokenizer.json")["added_tokens"]
    tokenizer["added_tokens_decoder"] = {str(added.pop("id")): added for added in added_tokens}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (copy / name).unlink()
        (copy / name).write_text(json.dumps(content), encoding="utf-8")


def run_python(given: argparse.Namespace, *arguments: str | Path) -> str:
    """Return what the other Python prints. Raises UnavailableError with its last line if it fails."""
    environment = os.environ | {"PYTHONPATH": str(given.oracle / "gguf-py"), "HF_HUB_OFFLINE": "1"}
    command = [str(given.python), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UnavailableError(f"{given.python} failed: {last}", hint="--help says how to set it up")
    return done.stdout


def compare_tensors(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how many tensors have the same type, shape and bytes, and how far the others are apart, relatively."""
    import numpy

    problems = [f"{name} is in one only" for name in sorted(ours.keys() ^ theirs.keys())]
    differences = {}
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        if (one.tensor_type, one.shape.tolist()) != (other.tensor_type, other.shape.tolist()):
            problems.append(
                f"{name} is {one.tensor_type.name} {one.shape} here, {other.tensor_type} {other.shape} there"
            )
        elif one.data.tobytes() != other.data.tobytes():
            wide = [tensor.data.astype(numpy.float64) for tensor in (one, other)]
            differences[name] = float(numpy.abs(wide[0] - wide[1]).max() / numpy.abs(wide[1]).max())
            if not (name.startswith("rope_") and differences[name] < FACTOR_ROUNDING):
                problems.append(f"{name} differs by {differences[name]:g} of its largest value")
    return {"tensors": len(ours), "differences": differences, "problems": problems}


def compare_metadata(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return for every key of two files how they differ, both values, and why that is meant ("" if it is not)."""
    found = {}
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        how = "only theirs" if one is None else "only ours" if other is None else "equal" if one == other else "differs"
        if how == "differs" and isinstance(one, list) and len(one) == len(other or ()):
            places = [place for place, pair in enumerate(zip(one, other or (), strict=True)) if pair[0] != pair[1]]
            one, other = (
                f"{len(places)} differ, first at {places[0]}: {side[places[0]]}" for side in (ours[key], theirs[key])
            )
        text = f"{how}, {shorten(one)} here, {shorten(other)} there"
        why = next((why for glob, like, why in EXPECTED if fnmatch(key, glob) and fnmatch(text, like)), "")
        found[key] = {"how": how, "ours": shorten(one), "theirs": shorten(other), "why": "" if how == "equal" else why}
    return found


def shorten(value: Any) -> str:
    """Return a value's text for a cell of a table."""
    text = "–" if value is None else " ".join(str(value).split()).replace("|", "¦").replace("`", "'")
    return text if len(text) <= 40 else text[:39] + "…"


def check_order(ours: list[float] | None, theirs: list[float] | None) -> list[str]:
    """Return a problem if pieces that SentencePiece merges stand in another order by their scores."""
    if not ours or not theirs:
        return []
    never = min(ours)  # of what no merge makes
    merged = sorted((-score, place) for place, score in enumerate(ours) if score > never)
    order = [theirs[place] for _, place in merged]
    return [] if order == sorted(order, reverse=True) else ["tokenizer.ggml.scores has another order"]


def compare_in_llama_cpp(base: Path, ours: Path, theirs: Path, texts: list[str]) -> dict[str, Any]:
    """Return how llama.cpp cuts texts with both files, beside the base's tokenizer, and how far their logits differ."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    # Every rendered text begins with a special token. NFC is what Qwen's tokenizer does and llama.cpp does not.
    texts = [(tokenizer.bos_token or "") + unicodedata.normalize("NFC", text) for text in texts]
    expected = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    ids = expected[-1][:TEXT_TOKENS]
    scores, same = [], []
    for path in (ours, theirs):
        with LlamaFile(path, TEXT_TOKENS) as model:
            same.append(sum(one == model.tokenize(text) for one, text in zip(expected, texts, strict=True)))
            scores.append(model.log_probs(ids, range(len(ids) - SCORED_POSITIONS, len(ids))))
    kl = mean_kl(*scores)
    problems = [f"llama.cpp cuts {len(texts) - same[0]} texts in another way"] if same[0] < len(texts) else []
    problems += [f"llama.cpp: mean KL {kl:.2g} nats"] if not kl < MEAN_KL_LIMIT else []
    return {"texts": len(texts), "same_ours": same[0], "same_theirs": same[1], "mean_kl": kl, "problems": problems}


def compare_upstream(base: Path, file: Path, texts: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Return how the file that llama.cpp's converter makes of the same base differs from ours."""
    copy, out = file.parent / "upstream", file.parent / "upstream.gguf"
    copy_for_upstream(base, copy)
    tensors, metadata = read_gguf(file)
    if metadata["tokenizer.ggml.model"] == "llama":  # Phi-3's tokenizer.model is Llama 2's
        pieces = given.vocabularies / "ggml-vocab-llama-spm.gguf"
        run_python(given, "-c", MAKE_TOKENIZER_MODEL, pieces, copy / "tokenizer.model")
    name, script = metadata["general.name"], given.oracle / "convert_hf_to_gguf.py"
    run_python(given, script, copy, "--outtype", "f16", "--outfile", out, "--model-name", name)
    their_tensors, theirs = read_gguf(out)
    found: dict[str, Any] = {
        "tensors": compare_tensors(tensors, their_tensors), "llama_cpp": compare_in_llama_cpp(base, file, out, texts),
    }  # fmt: skip
    problems = found["tensors"].pop("problems") + found["llama_cpp"].pop("problems")
    problems += check_order(*(side.get("tokenizer.ggml.scores") for side in (metadata, theirs)))
    found["metadata"] = compare_metadata(metadata, theirs)
    for key, how in found["metadata"].items():
        if how["how"] != "equal" and not how["why"]:
            problems.append(f"{key}: {how['how']}, {how['ours']} here, {how['theirs']} there")
    return found | {"problems": problems}


def compare_family(family: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return the comparisons of one family, and what in them is not expected."""
    template = load_template(FAMILIES[family][2])
    base, file = make_base(family, given.vocabularies, folder / "base"), folder / "ours.gguf"
    convert(base, None, file, template=template, name=f"tiny {family}", metadata={})
    text = "".join(tiny_texts(template))
    loader = compare_loader(base, file, text)
    found = {"loader": loader, "problems": loader.pop("problems")}
    if given.oracle:
        cases = given.vocabularies / f"ggml-vocab-{FAMILIES[family][1]}.gguf.inp"
        asked = cases.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
        upstream = compare_upstream(base, file, [*NASTY_TEXTS, *asked, BLANK_RUNS, text], given)
        found |= upstream | {"problems": found["problems"] + upstream["problems"]}
    return found


def read_versions(given: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Return the versions of what made each file; for llama.cpp's converter, which has none, its sources' hash."""
    sources = [given.oracle / "convert_hf_to_gguf.py", *sorted((given.oracle / "conversion").glob("*.py"))]
    theirs = {
        "sha256 of the converter": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    }
    for package in json.loads(run_python(given, "-m", "pip", "list", "--format=json")):
        if package["name"] in {"torch", "transformers", "numpy", "sentencepiece", "protobuf"}:
            theirs[package["name"]] = package["version"]
    ours = installed_versions(("torch", "transformers", "tokenizers", "gguf", "numpy", "llama-cpp-python"))
    return {"ours": ours, "theirs": theirs}


def render_tables(report: dict[str, Any]) -> str:
    """Return the part of docs/parity.md that changes with the figures."""
    rows: list[list[str]] = []
    reasons: dict[tuple[str, str], list[Any]] = {}
    for family, found in report["families"].items():
        loader, tensors, cut, keys = (found[name] for name in ("loader", "tensors", "llama_cpp", "metadata"))
        differing = {key: how for key, how in keys.items() if how["how"] != "equal"}
        unlike = ", ".join(f"{name} {largest:.0e}" for name, largest in tensors["differences"].items())
        rows.append([
            family, f"{loader['equal']} of {loader['tensors']}", f"{loader['mean_kl']:.0e}",
            f"{tensors['tensors'] - len(tensors['differences'])} of {tensors['tensors']}", unlike or "–",
            f"{len(keys) - len(differing)} of {len(keys)}", f"{cut['same_ours']} of {cut['texts']}",
            f"{cut['same_theirs']} of {cut['texts']}", f"{cut['mean_kl']:.0e}",
        ])  # fmt: skip
        for key, how in differing.items():
            reasons.setdefault((key, how["why"] or "**not expected**"), []).append((family, how))
    explained = [
        [f"`{key}`", "all" if len(cases) == len(PUBLISHED) else ", ".join(family for family, _ in cases),
         f"`{cases[0][1]['ours']}`", f"`{cases[0][1]['theirs']}`", why]
        for (key, why), cases in sorted(reasons.items())
    ]  # fmt: skip
    lines = [
        *render_table(HEAD, rows), "",
        *render_table("key|families|ours|theirs|why", explained), "",
        f"Not expected: {'; '.join(report['problems']) or 'nothing'}.", "",
        f"`{report['command']}`, {report['seconds']} s. " + " ".join(
            f"{side.capitalize()}: {', '.join(f'{name} {fact}' for name, fact in facts.items())}."
            for side, facts in (report["versions"] | {"machine": report["machine"]}).items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def render_table(head: str, rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [head.split("|"), ["---"] * (head.count("|") + 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def run(given: argparse.Namespace) -> None:
    """Compare every family; write the page's tables and the JSON file if llama.cpp's converter is asked.

    Raises:
        EdgeError: a file is missing, the other Python failed, or something differs that should not (GateError).
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    import numpy
    from transformers.utils import logging

    if given.oracle and not (given.python and (given.oracle / "convert_hf_to_gguf.py").is_file()):
        raise UsageError("--oracle is not a llama.cpp source tree, or --python is missing", hint="see --help")
    logging.set_verbosity_error()
    families: dict[str, Any] = {}
    started_s = time.monotonic()
    # GGUFReader slices its file once for each of 400,000 strings: an array is sliced four times as fast as a map.
    with mock.patch("numpy.memmap", lambda path, **_: numpy.fromfile(path, numpy.uint8)):
        for family in PUBLISHED:
            with tempfile.TemporaryDirectory() as folder:
                families[family] = compare_family(family, Path(folder), given)
            gc.collect()
            print(f"{family}: compared, after {time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True)
    problems = [f"{family}: {problem}" for family, found in families.items() for problem in found.pop("problems")]
    if given.oracle:
        report = {"command": COMMAND, "machine": this_machine(), "versions": read_versions(given),
                  "seconds": round(time.monotonic() - started_s), "problems": problems,
                  "families": families}  # fmt: skip
        RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + render_tables(report) + END + rest.partition(END)[2], encoding="utf-8")
    if problems:
        raise GateError(f"differences that are not expected: {len(problems)}; the first: {problems[0]}")
    print(f"{len(families)} families, every difference is an expected one")


def main() -> int:
    """Run the command; what goes wrong is one line and its exit code, 5 for a difference that is not expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=Path, required=True, help="folder with ggml-vocab-*.gguf")
    parser.add_argument("--oracle", type=Path, help="a llama.cpp source tree; without it only transformers is asked")
    parser.add_argument("--python", type=Path, help="Python of the environment in which its converter runs")
    try:
        run(parser.parse_args())
    except EdgeError as error:
        print(f"converter_parity: {error}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
