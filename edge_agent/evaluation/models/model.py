"""What an argument of `edgewright eval` stands for: a GGUF file, a bundle, a run, a base, rules, an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from devices.errors import UsageError
from devices.site.site import Site
from edge_agent.base_models import PACKAGES, base_path
from edge_agent.bundle import ANY_SITE_KEY, CONTRACT_KEY, CURRENT, MANIFEST, TEMPLATE_KEY, open_bundle
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.evaluation.baselines.endpoint import ENDPOINT, Endpoint
from edge_agent.evaluation.baselines.few_shot import FewShot
from edge_agent.evaluation.baselines.rules import RULES
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.report import Role
from edge_agent.plugins import HUGGINGFACE
from edge_agent.run_facts import RUN_FILE, read_run_facts
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import contract_of, format_digest, require_contract
from edge_agent.wire.messages import Message


@dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Attributes:
        label: as the report calls it.
        role: what it is compared with.
        path: GGUF file, or what the engine takes.
        engine: name of an engine that another package offers (plugins.py), or rules; "" for llama.cpp.
        template: name of its chat template; "" is that of the models beside it.
        adapter: of a LoRA adapter to apply: a GGUF file to a GGUF file, a folder to what an engine takes; "" for none.
        shots: worked examples in every prompt.
    """

    label: str
    role: Role
    path: str
    engine: str = ""
    template: str = ""
    adapter: str = ""
    shots: tuple[Message, ...] = ()


def find_model(name: str, site: Site) -> Model:
    """Return what an argument stands for: GGUF file, bundle, box, run, Hugging Face folder, hub name, rules, or a URL.

    Raises:
        UsageError: it is none of them.
        ContractChanged: it was trained for another site, template or prompt.
    """
    if name in PACKAGES:
        return Model("base", "base", base_path(name), HUGGINGFACE)
    path = Path(name)
    if name.partition(":")[0] == RULES:
        language = name.partition(":")[2] or "en"
        return Model(f"rules, {language}", "base", language, RULES)
    if name.startswith(("http://", "https://")):
        return Model(Endpoint.parse(name).model, "base", name, ENDPOINT)
    if path.suffix == ".gguf":
        header = require_gguf(path)
        template = str(header.metadata.get(TEMPLATE_KEY, ""))
        trained_for, any_site = (str(header.metadata.get(key, "")) for key in (CONTRACT_KEY, ANY_SITE_KEY))
        if trained_for:
            _require_trained_for(trained_for, any_site, site, load_template(template), str(path))
        quant = path.stem.removeprefix("model-")
        role: Role = "base" if not trained_for else "f16" if quant == "F16" else "quant"
        return Model(quant, role, name, template=template)
    if (path / MANIFEST).is_file() or (path / CURRENT).is_symlink():
        bundle = open_bundle(path)
        bundle.require_site(site)
        label = f"{bundle.manifest.quant} (bundle)"
        adapter = str(bundle.adapter_path or "")
        return Model(label, "quant", str(bundle.model_path), template=bundle.template.name, adapter=adapter)
    if (path / RUN_FILE).is_file():
        run = read_run_facts(path)
        _require_trained_for(run.contract, run.any_site, site, load_template(run.template), f"run {path}")
        return Model("tuned", "tuned", name, HUGGINGFACE, run.template)
    is_mistyped = not path.exists() and path.parent != Path() and path.parent.is_dir()  # no name on the hub
    if is_mistyped or (path.exists() and not (path / "config.json").is_file()):
        raise UsageError(
            f"{path} is no model", hint="give a .gguf file, a bundle, a box, a run or a Hugging Face folder"
        )
    return Model("base", "base", name, HUGGINGFACE)


def find_models(names: Sequence[str], site: Site) -> list[Model]:
    """Return what several arguments stand for; one without a chat template gets that of the models beside it."""
    found = [find_model(name, site) for name in names]
    template = next((model.template for model in found if model.template), "chatml")
    return [model if model.template else replace(model, template=template) for model in found]


def with_shots(models: Sequence[Model], few_shot: FewShot, site: Site, cases: Sequence[Case]) -> list[Model]:
    """Return models, each untrained one followed by itself with worked examples in its prompt.

    Raises:
        UsageError: none is untrained, or as FewShot.messages.
    """
    found, asks = list[Model](), {case.ask for case in cases}
    for model in models:
        found.append(model)
        if model.role == "base" and model.engine in ("", HUGGINGFACE):
            shots = few_shot.messages(contract_of(site, load_template(model.template)), asks)
            found.append(replace(model, label=f"{model.label}, {few_shot.count} shots", shots=shots))
    if len(found) == len(models):
        raise UsageError(
            "--few-shot: no model here is untrained", hint="name a base, such as smollm2, or its GGUF file"
        )
    return found


def _require_trained_for(trained_for: str, any_site: str, site: Site, template: ChatTemplate, what: str) -> None:
    if any_site:
        require_contract(any_site, format_digest(template), what)
    else:
        require_contract(trained_for, contract_of(site, template).digest, what)
