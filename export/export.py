"""A run of `edgewright train` to a bundle: convert, check, quantize, check, write. Each stage is a file of its own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from devices.durable import sha256_of
from devices.errors import UsageError
from devices.site import load_site
from devices.tools import ToolCall
from edge_agent.cases import read_cases
from edge_agent.wire import ChatTemplate, Message, contract_of, load_template, require_contract
from export.adapter_file import write_adapter
from export.bundle import Parts, require_writable, write_bundle
from export.convert import ConvertReport, convert, read_config
from export.layout import read_shape
from export.merged import save_merged
from export.parity import check, check_endings, compare_adapter, compare_quantized
from export.quantize import Quant, quantize
from export.targets import choose_quant, load_target

MergeBase = Literal["original", "nf4"]
TOOLS_USED = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "gguf", "llama-cpp-python", "numpy")
_BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Wishes:
    """What else an export may be asked for.

    Attributes:
        merge_base: what the adapter is merged into: the base as it is, or what NF4 keeps of it, as training saw it.
        merged: a folder for the merged model as Hugging Face has it; None writes none.
        adapter_file: a GGUF file for the adapter alone, to be laid over model-base-F16.gguf; None writes none.
        may_be_endless: whether a model whose replies do not end by themselves is exported too.
    """

    merge_base: MergeBase = "original"
    merged: Path | None = None
    adapter_file: Path | None = None
    may_be_endless: bool = False


@dataclass(frozen=True)
class Run:
    """A run's folder: what it was trained from, and the files it holds. `plain` is run.json."""

    path: Path
    plain: dict[str, Any]
    base: Path
    template: ChatTemplate
    contract: str

    @property
    def adapter(self) -> Path:
        """The LoRA adapter, as peft saves it."""
        return self.path / "adapter"

    @property
    def site_path(self) -> Path:
        """The site the run was trained for."""
        return self.path / "site.yaml"


def read_run(path: Path, base: Path | None = None) -> Run:
    """Return a run's folder, checked.

    Args:
        path: the folder that `edgewright train` made.
        base: the base model's folder, if it is no longer where run.json says.

    Raises:
        UsageError: a file is missing or unreadable; the message names it.
        ContractChanged: template, system prompt or tools are no longer what the run was trained with.
    """
    file = path / "run.json"
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        if plain["schema"] != "run/v1":
            raise UsageError(f"{file}: schema is {plain['schema']!r}", hint="this version reads run/v1")
        template_name, contract = str(plain["template"]), str(plain["contract"])
        folder = base or Path(plain["base"])
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error}", hint="give a folder that `edgewright train` made") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: not a run: {error!r}") from error
    if not folder.is_dir():
        raise UsageError(f"the base model {folder} is not there", hint="give its folder with --base")
    template = load_template(template_name)
    run = Run(path, plain, folder, template, contract)
    require_contract(contract, contract_of(load_site(run.site_path), template).digest, f"run {path.name}")
    return run


def read_sample(run: Run) -> list[list[Message]]:
    """Return the run's sample conversations. Raises UsageError with file and line."""
    file, conversations = run.path / "sample.jsonl", []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            messages = [
                Message(turn["role"], turn["text"], turn.get("thought", ""),
                        tuple(ToolCall(call["name"], call["arguments"]) for call in turn.get("calls", [])))
                for turn in json.loads(line)["messages"]
            ]  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file}:{number}: not a conversation: {error!r}") from error
        conversations.append(messages)
    return conversations


def export_run(
    run_path: Path,
    quants: Sequence[Quant],
    out: Path,
    *,
    work: Path | None = None,
    base: Path | None = None,
    smoke: Path | None = None,
    name: str | None = None,
    wishes: Wishes | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Make a bundle from a run, through every gate; return its export.json.

    Args:
        run_path: the run's folder.
        quants: what to make; the last goes into the bundle.
        out: the bundle's folder.
        work: where the GGUF files are kept, as model-F16.gguf and so on; None is `gguf` beside the bundle.
        base: the base model's folder, if it is not where the run says.
        smoke: cases for the bundle; None takes the run's smoke.jsonl if there is one.
        name: the model's name; None is the name of the bundle's folder.
        wishes: what else; nothing if None.
        say: is told each stage, in a line.

    Raises:
        UsageError: the run, the base or a flag cannot be used.
        ContractChanged: the run was trained for another template, system prompt or tools.
        GateError: a gate failed; no bundle is written.
    """
    start_s, wishes = time.monotonic(), wishes or Wishes()
    require_writable(out)
    run, name, work = read_run(run_path, base), name or out.name, work or out.parent / "gguf"
    sample = read_sample(run)
    texts = [run.template.render(messages, add_generation_prompt=False) for messages in sample]
    asked = (list(takewhile(lambda message: message.role != "assistant", messages)) for messages in sample)
    prompts = [run.template.render(messages, add_generation_prompt=True) for messages in asked]
    if smoke is None and (run_path / "smoke.jsonl").is_file():
        smoke = run_path / "smoke.jsonl"
    if smoke:
        read_cases(smoke)
    seconds: dict[str, float] = {}

    def stage(key: str, line: str) -> None:
        seconds[key] = time.monotonic() - start_s - sum(seconds.values())
        say(f"{line} ({seconds[key]:.1f} s)")

    nf4_dtype = _nf4_dtype(run) if wishes.merge_base == "nf4" else ""
    provenance = _provenance(run) | {"merge_base": wishes.merge_base}
    stage("hash", f"base {run.base}, adapter {run.adapter}")
    if wishes.merged:
        save_merged(run.base, run.adapter, wishes.merged, nf4_dtype)
        stage("merged", f"{wishes.merged}, as Hugging Face has it")
    f16 = work / "model-F16.gguf"
    made = _convert(run, run.adapter, f16, name, nf4_dtype)
    stage("convert", f"{f16}: {made.tensors} tensors, {made.merged_modules} merged, {made.size_bytes / 1e6:.1f} MB")
    parity = check(run.base, run.adapter, run.template, f16, texts, nf4_dtype)
    agreement = f"mean KL {parity.mean_kl:.1e}, first choices {parity.top1_agreement:.3f}"
    stage("parity", f"same tokens ({parity.tokens}), {agreement}")
    gates: dict[str, Any] = {"parity": asdict(parity), "quantized": {}, "endings": {}}
    if wishes.adapter_file:
        plain = work / "model-base-F16.gguf"
        _convert(run, None, plain, name, nf4_dtype)
        size_bytes = write_adapter(read_shape(read_config(run.base)), run.adapter, wishes.adapter_file, name)
        gates["adapter"] = asdict(compare_adapter(f16, plain, wishes.adapter_file, texts))
        distance = _distance(gates["adapter"])
        stage("adapter", f"{wishes.adapter_file}: {size_bytes / 1e6:.1f} MB, for {plain}, {distance}")
    files = {}
    for kind in quants:
        file = work / f"model-{kind}.gguf"
        if kind != "F16":
            types = quantize(f16, file, kind).types
            gates["quantized"][kind] = asdict(compare_quantized(f16, file, texts)) | {"types": types}
        if not wishes.may_be_endless:
            gates["endings"][kind] = asdict(check_endings(file, run.template, prompts))
        size_bytes = file.stat().st_size
        files[kind] = {"path": str(file), "sha256": sha256_of(file), "bytes": size_bytes}
        stage(kind, f"{file}: {size_bytes / 1e6:.1f} MB, {_distance(gates['quantized'].get(kind))}")
    export = provenance | {"name": name, "quant": quants[-1], "gguf": files, "gates": gates, "seconds": seconds}
    model = work / f"model-{quants[-1]}.gguf"
    write_bundle(Parts(name, quants[-1], model, run.site_path, run.template, smoke, export), out)
    stage("bundle", f"bundle {out} with {quants[-1]}")
    return export


def _convert(run: Run, adapter: Path | None, out: Path, name: str, nf4_dtype: str) -> ConvertReport:
    metadata = {"contract": run.contract, "template": run.template.name, "site": str(run.plain.get("site", ""))}
    return convert(run.base, adapter, out, template=run.template, name=name, metadata=metadata, nf4_dtype=nf4_dtype)


def quant_for(target: str, run_path: Path, base: Path | None, say: Callable[[str], None]) -> Quant:
    """Return the best quantization of a run's model for a target, and say why it is. Raises UsageError if none fits."""
    choice = choose_quant(load_target(target), read_shape(read_config(read_run(run_path, base).base)))
    say(f"{target}: {choice.reason}")
    return choice.quant


def _nf4_dtype(run: Run) -> str:
    """Return the type in which a run loaded its 4-bit base. Raises UsageError if its base was not in 4 bits."""
    if "quantization: nf4" not in _recipe_text(run):
        raise UsageError(f"{run.path} was not trained on an NF4 base", hint="leave out --merge-base")
    return str(run.plain["dtype"])


def _recipe_text(run: Run) -> str:
    recipe = run.path / "recipe.yaml"
    return recipe.read_text(encoding="utf-8") if recipe.is_file() else ""


def _distance(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "the reference"
    return f"{measured['mean_kl']:.1e} nats from F16, first choices {measured['top1_agreement_all']:.3f}"


def _provenance(run: Run) -> dict[str, Any]:
    base_files = sorted({path for pattern in _BASE_FILES for path in run.base.glob(pattern)})
    return {
        "schema": "export/v1",
        "run": run.plain,
        "contract": run.contract,
        "base": {"path": str(run.base), "sha256": {path.name: sha256_of(path) for path in base_files}},
        "adapter": {"sha256": {path.name: sha256_of(path) for path in sorted(run.adapter.glob("adapter_*"))}},
        "data": run.plain.get("data", {}),
        "recipe": _recipe_text(run),
        "versions": {"python": platform.python_version()} | {tool: _version(tool) for tool in TOOLS_USED},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
