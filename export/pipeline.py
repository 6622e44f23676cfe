"""A run of `edgewright train` to a bundle: convert, check, quantize, check, write. Each stage is a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from devices.durable import sha256_of
from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.conversations.turn_smoke import TurnSmoke
from edge_agent.evaluation.conversations.turns import TurnCase
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.smoke import Smoke
from edge_agent.progress import ByteProgressBar, no_progress_bar
from export.architectures import Shape, read_shape
from export.bundle.writer import Parts, require_writable, write_bundle
from export.convert.adapter_gguf import write_adapter
from export.convert.gguf_writer import ConvertReport, convert, header_bytes, read_config
from export.convert.merged_checkpoint import save_merged
from export.gates.parity import (
    Distance,
    F16Reference,
    check_adapter,
    check_beyond,
    check_endings,
    check_logits,
    check_quantized,
    check_texts,
)
from export.gates.smoke import record_smoke, record_turn_smoke
from export.gates.tasks import Tasks, better_base, check_tasks
from export.quantize.importance_matrix import mean_squares, measure_importance, write_importance
from export.quantize.plan import IMPROVED, Plan, Quant, plan
from export.quantize.targets import choose_quant, load_target
from export.trained.reference import Reference
from export.trained.run import Run, gate_limits, provenance_of, read_run
from export.trained.samples import Part, Sample, read_samples

MergeBase = Literal["original", "nf4", "better"]


@dataclass(frozen=True)
class ExportOptions:
    """What else an export may be asked for.

    Attributes:
        merge_base: what the adapter is merged into: the base as it is, what NF4 keeps of it, as training saw it, or
            whichever of the two measures better.
        merged: a folder for the merged model as Hugging Face has it; None writes none.
        is_unmerged: whether the adapter stays a file of its own, over the base's, so that a box that has the base needs
            the adapter only.
        tensor_types: types by pattern of names, instead of the mix's.
        weighs_inputs: whether types below 8 bits are chosen by an importance matrix.
        gates: NAME=VALUE, instead of the recipe's limits.
        tasks: cases for the last gate; None leaves it out.
    """

    merge_base: MergeBase = "original"
    merged: Path | None = None
    is_unmerged: bool = False
    tensor_types: Mapping[str, str] = field(default_factory=dict)
    weighs_inputs: bool = True
    gates: Sequence[str] = ()
    tasks: Tasks | None = None


def export_run(
    run_path: Path,
    quants: Sequence[Quant],
    out: Path,
    *,
    work: Path | None = None,
    base: Path | None = None,
    smoke: Sequence[Case] | Sequence[TurnCase] = (),
    name: str | None = None,
    options: ExportOptions | None = None,
    log: Callable[[str], None] = lambda line: None,
    progress_bar: ByteProgressBar = no_progress_bar,
) -> dict[str, Any]:
    """Make a bundle from a run, through every gate; return its export.json.

    Args:
        run_path: the run's folder.
        quants: what to make; the last goes into the bundle.
        out: the bundle's folder.
        work: where the GGUF files are kept, as model-Q8_0.gguf and so on; None is `gguf` beside the bundle.
        base: the base model's folder, if it is not where the run says.
        smoke: cases that the bundle takes along, with what its model does with them; none are allowed.
        name: the model's name; None is the name of the bundle's folder.
        options: what else; nothing if None.
        log: is told each stage, in a line.
        progress_bar: opens a progress bar for a file that is being written: (label, bytes in all).

    Raises:
        UsageError: the run, the base or a flag cannot be used.
        ContractChanged: the run was trained for another template, system prompt or tools.
        GateError: a gate failed; no bundle is written.
    """
    options = options or ExportOptions()
    require_writable(out)
    run = read_run(run_path, base)
    limits = gate_limits(run, options.gates)
    if options.merge_base != "original" and not run.nf4_dtype:
        raise UsageError(f"{run.path} was not trained on an NF4 base", hint="leave out --merge-base")
    samples = read_samples(run.sample_path, run.template)
    shape, model_name = read_shape(read_config(run.base)), name or out.name
    source = _Source(run, shape, samples, limits, options, model_name, work or out.parent / "gguf", progress_bar)
    stages = _Stages(log)

    plans = _plans(shape, quants, options)
    for kind, planned in plans.items():
        for line in planned.exceptions:
            log(f"{kind}: {line}")
    provenance = provenance_of(run)
    stages.done("hash", f"base {run.base}, adapter {run.adapter}")
    merge_base = _choose_base(source, stages)
    source = replace(source, nf4_dtype=run.nf4_dtype if merge_base == "nf4" else "")
    if options.merged:
        save_merged(run.base, run.adapter, options.merged, source.nf4_dtype)
        stages.done("merged", f"{options.merged}, as Hugging Face has it")
    _write_f16(source, stages)
    f16 = _check_f16(source, stages, wants_importance=options.weighs_inputs and bool(IMPROVED & set(quants)))
    if source.adapter_beside:
        _write_adapter(source, source.adapter_beside, f16.reference, stages)
    files = _quantize(source, plans, f16, stages)
    if options.tasks:
        _check_tasks(source, options.tasks, files, stages)
    recorded = _record_smoke(source, smoke, files[quants[-1]], stages) if smoke else None

    result = provenance | {
        "name": model_name,
        "quant": quants[-1],
        "merge_base": merge_base,
        "is_unmerged": options.is_unmerged,
        "gguf": {
            kind: {"path": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size}
            for kind, path in files.items()
        },
        "gates": stages.gates | {"limits": limits.model_dump()},
        "seconds": stages.seconds,
    }
    parts = Parts(
        name=model_name,
        quant=quants[-1],
        model=files[quants[-1]],
        site=run.site_path,
        template=run.template,
        smoke=recorded,
        export=result,
        adapter=source.adapter_beside,
    )
    write_bundle(parts, out)
    stages.done("bundle", f"bundle {out} with {quants[-1]}")
    return result


def planned_sizes(
    run_path: Path, quants: Sequence[Quant], base: Path | None, name: str, options: ExportOptions
) -> list[tuple[Plan, int]]:
    """Return the plan for each quantization of a run's model, with the size of its file in bytes; writes nothing.

    Raises:
        UsageError: as export_run.
    """
    run = read_run(run_path, base)
    shape = read_shape(read_config(run.base))
    plans = _plans(shape, quants, options).values()
    return [
        (one, one.data_bytes + header_bytes(run.base, one, template=run.template, name=name, metadata=run.metadata))
        for one in plans
    ]


def _plans(shape: Shape, quants: Sequence[Quant], options: ExportOptions) -> dict[Quant, Plan]:
    return {kind: plan(shape, kind, options.tensor_types, has_importance=options.weighs_inputs) for kind in quants}


def quant_for(target: str, run_path: Path, base: Path | None, log: Callable[[str], None]) -> Quant:
    """Return the best quantization of a run's model for a target, and say why it is. Raises UsageError if none fits."""
    choice = choose_quant(load_target(target), read_shape(read_config(read_run(run_path, base).base)))
    log(f"{target}: {choice.reason}")
    return choice.quant


@dataclass(frozen=True)
class _Source:
    """What every stage of one export makes its files from. `nf4_dtype` is "" if merged into the base as it is."""

    run: Run
    shape: Shape
    samples: Sequence[Sample]
    limits: GateLimits
    options: ExportOptions
    name: str
    work: Path
    progress_bar: ByteProgressBar
    nf4_dtype: str = ""

    @property
    def f16(self) -> Path:
        return self.work / "model-F16.gguf"

    @property
    def adapter_beside(self) -> Path | None:
        """The adapter's own GGUF file, if it stays one."""
        return self.work / "adapter.gguf" if self.options.is_unmerged else None


@dataclass(frozen=True)
class _F16:
    """The F16 file as a yardstick for others, and the importance matrix by GGUF name: empty if not wanted."""

    reference: F16Reference
    importance: Mapping[str, Any]


class _Stages:
    """Tells of each stage that is done; keeps how long it took and what its gates measured."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._last_s = log, time.monotonic()
        self.seconds: dict[str, float] = {}
        self.gates: dict[str, Any] = {}

    def done(self, key: str, line: str, **measured: Any) -> None:
        now = time.monotonic()
        self.gates |= measured
        self.seconds[key], self._last_s = now - self._last_s, now
        self._log(f"{line} ({self.seconds[key]:.1f} s)")


def _choose_base(source: _Source, stages: _Stages) -> str:
    """Return what the adapter is merged into."""
    options, run = source.options, source.run
    if options.merge_base != "better":
        return options.merge_base
    candidates = {}
    try:
        for kind, nf4_dtype in (("original", ""), ("nf4", run.nf4_dtype)):
            candidates[kind] = source.work / f"merged-into-{kind}-F16.gguf"
            _convert(replace(source, nf4_dtype=nf4_dtype), candidates[kind], run.adapter)
        best, measured = better_base(candidates, source.samples, options.tasks, run.template)
    finally:
        for path in candidates.values():
            path.unlink(missing_ok=True)
    summary = ", ".join(f"{kind}: {_summary(found)}" for kind, found in measured.items())
    stages.done("merge base", f"merged into {best} ({summary})", merge_base=measured)
    return best


def _write_f16(source: _Source, stages: _Stages) -> None:
    made = _convert(source, source.f16, source.run.adapter)
    size = f"{sum(made.types.values())} tensors, {made.merged_modules} merged"
    stages.done("convert", f"{source.f16}: {size}, {made.size_bytes / 1e6:.1f} MB")


def _check_f16(source: _Source, stages: _Stages, *, wants_importance: bool) -> _F16:
    """Hold the F16 file against the model that was trained, which is in memory only here."""
    run, limits, samples, original = source.run, source.limits, source.samples, source.shape.rope.original_context
    texts = check_texts(run.base, run.template, source.f16, samples)
    f16_reference = F16Reference(source.f16, samples)
    reference = Reference(run.base, run.adapter, source.nf4_dtype)
    logits = check_logits(reference, f16_reference, limits)
    line = f"same tokens ({texts.tokens}), {_distance(logits, 'the trained model')}"
    stages.done("parity", line, texts=asdict(texts), logits=asdict(logits))
    if original and original < source.shape.context_tokens and limits.beyond_context:
        beyond = check_beyond(reference, source.f16, f16_reference, original, limits)
        line = f"after {original} tokens, {_distance(beyond, 'the trained model')}"
        stages.done("beyond", line, beyond_context=asdict(beyond))
    if not wants_importance:
        return _F16(f16_reference, {})
    sums, tokens = measure_importance(reference, source.shape, source.f16, samples)
    path = source.work / "imatrix.gguf"
    write_importance(path, sums, tokens, run.facts.data.path)
    line = f"{path}: inputs of {len(sums)} tensors on {tokens} tokens"
    stages.done("importance", line, importance={"path": str(path), "sha256": sha256_of(path), "tokens": tokens})
    return _F16(f16_reference, mean_squares(sums, tokens))


def _write_adapter(source: _Source, adapter: Path, f16_reference: F16Reference, stages: _Stages) -> None:
    """Write the adapter as a file of its own; the base alone takes the merged one's place in the F16 file."""
    run = source.run
    size_bytes = write_adapter(source.shape, run.adapter, adapter, source.name, run.metadata)
    _convert(source, source.f16, None)
    found = check_adapter(f16_reference, source.f16, adapter, source.limits)
    line = f"{adapter}: {size_bytes / 1e6:.1f} MB, over {source.f16} {_distance(found)}"
    stages.done("adapter", line, adapter=asdict(found))


def _quantize(source: _Source, plans: Mapping[Quant, Plan], f16: _F16, stages: _Stages) -> dict[str, Path]:
    """Write each quantized file, read it back and hold it against the F16 file; return all by name."""
    types: dict[str, Any] = {}
    quantized: dict[str, Any] = {}
    ended: dict[str, Any] = {}
    files: dict[str, Path] = {}
    adapter = source.adapter_beside
    if "F16" not in plans:
        source.f16.unlink()  # the yardstick has what it said: the disk never holds more than one file more
    for kind, planned in plans.items():
        file = source.work / f"model-{kind}.gguf"
        summary = "the reference"
        if kind != "F16":
            merged = None if adapter else source.run.adapter
            types[kind] = _convert(source, file, merged, planned, f16.importance).types
            found = check_quantized(f16.reference, file, source.limits, adapter)
            quantized[kind] = {part or "all": asdict(one) for part, one in found.items()}
            summary = _by_part(found)
        if source.limits.endings:
            endings = check_endings(file, source.run.template, source.samples, source.limits, adapter)
            ended[kind] = asdict(endings)
        files[kind] = file
        line = f"{file}: {file.stat().st_size / 1e6:.1f} MB, {summary}"
        stages.done(kind, line, types=types, quantized=quantized, endings=ended)
    return files


def _check_tasks(source: _Source, tasks: Tasks, files: Mapping[str, Path], stages: _Stages) -> None:
    run = source.run
    found = check_tasks(tasks, run.path, run.base, files, source.adapter_beside, run.template, source.limits)
    summary = ", ".join(f"{name} {found[name]['count']}" for name in ("Hugging Face", *files))
    stages.done("tasks", f"of {found['cases']} tasks done: {summary}", tasks=found)


def _record_smoke(
    source: _Source, cases: Sequence[Case] | Sequence[TurnCase], file: Path, stages: _Stages
) -> Smoke | TurnSmoke:
    """Have the file that is bundled do the smoke cases, by the engine that a box has."""
    site, adapter, template = load_site(source.run.site_path), source.adapter_beside, source.run.template
    smoke: Smoke | TurnSmoke
    if site.is_toolset:
        smoke, right = record_turn_smoke(file, adapter, template, cast(Sequence[TurnCase], cases))
    else:
        smoke, right = record_smoke(file, adapter, site, template, cast(Sequence[Case], cases))
    line = f"{len(cases)} smoke cases recorded, {right} of them done right"
    stages.done("smoke", line, smoke={"cases": len(cases), "right": right})
    return smoke


def _convert(
    source: _Source,
    out: Path,
    adapter: Path | None,
    planned: Plan | None = None,
    importance: Mapping[str, Any] | None = None,
) -> ConvertReport:
    run, planned = source.run, planned or plan(source.shape, "F16")
    with source.progress_bar(out.name, planned.data_bytes) as progress:
        return convert(
            run.base,
            adapter,
            out,
            template=run.template,
            name=source.name if adapter else run.base.name,
            metadata=run.metadata if adapter else {"template": run.template.name},
            nf4_dtype=source.nf4_dtype,
            planned=planned,
            importance=importance,
            progress=progress,
        )


def _summary(found: Mapping[str, Any]) -> str:
    tasks = f"{found['tasks_done']} tasks, " if "tasks_done" in found else ""
    return f"{tasks}loss {found['loss']:.5f}"


def _distance(found: Distance, other: str = "F16") -> str:
    return f"{found.mean_kl:.1e} nats from {other}, first choices {found.top1_agreement_all:.3f}"


def _by_part(found: Mapping[Part | None, Distance]) -> str:
    parts = ", ".join(f"{part} {one.mean_kl:.1e}" for part, one in found.items() if part)
    return f"{_distance(found[None])} ({parts})"
