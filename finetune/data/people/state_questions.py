"""Plans of questions about the state: of one device, and of all of a kind. Answered from the prompt, never acting."""

from __future__ import annotations

from devices.site.describe import number_text, value_text
from devices.site.device import Device
from devices.site.phrasings import group_words
from devices.site.relative_values import allowed, usual_step
from devices.site.schema import Value
from edge_agent.agent.known import known_device
from edge_agent.grammar.thought_answers import answer_about_kind
from edge_agent.wire.messages import facts_text
from finetune.data.answer_plans import answer_about, told_of
from finetune.data.held_out import side
from finetune.data.people.asks import AskedProperty
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.wishes import NOTED
from finetune.data.scene import Plan, Said, Scene, resolved_text

REMARKS_SHARE = 0.2
BY_STATE_SHARE = 0.3  # of questions about a kind name the state, also the one that is not so: "are they all off?"
MOST_OF_A_KIND = 6  # more would not fit a thought


def plan_asked_question(scene: Scene) -> Plan | None:
    """A question about one property of one device, or a remark about it."""
    choices = []
    for device in scene.site.devices.values():
        for key, value in scene.state[device.name].items():
            asked = scene.corpus.property(device, key)
            forms = ["yes", "no"] if isinstance(value, bool) else ["value", "value", "compare"]
            forms += ["remarks"] if scene.rng.random() < REMARKS_SHARE else []
            asked_as = [(asked, form) for form in forms]
            asked_as += [(one, form) for one in scene.corpus.states(device, key) for form in ("yes", "no")]
            choices += [(device, key, *one) for one in asked_as if side(getattr(*one), scene.held_out)]
    if not choices:
        return None
    return question_plan(scene, *scene.rng.choice(choices))


def question_plan(scene: Scene, device: Device, key: str, asked: AskedProperty, form: str) -> Plan | None:
    """One question of a form of the corpus about a property."""
    value, schema = scene.state[device.name][key], device.properties[key]
    holes: dict[str, str] = {}
    if form == "compare":
        if not isinstance(value, int | float) or schema.minimum is None:
            return None
        bound = allowed(schema, value + scene.rng.choice((-2, 2)) * usual_step(schema))
        holes["value"] = spoken_value(schema, bound, scene.rng)
    if (said := scene.fill(getattr(asked, form), device, **holes)) is None:
        return None
    ask = scene.typed(said.request)
    if form == "remarks":
        return Plan("remark", ask, (said.template,), f"a remark: {resolved_text(said.name, device)}.", answer=NOTED)
    return answered(scene, "question", device, key, Said(ask, said.template, said.name))


def answered(scene: Scene, kind: str, device: Device, key: str, said: Said) -> Plan:
    """Return the plan of a question about a property, which is answered from the state. Args: said: as it arrives."""
    state = scene.state[device.name]
    answer = answer_about(device, state, [key])
    has = (told_of(answer, words_for(device, key, state[key])),)
    thought = f"{resolved_text(said.name, device)}:{facts_text(state)}."
    return Plan(kind, said.request, (said.template,), thought, answer=answer, answer_has=has)


def words_for(device: Device, key: str, value: Value) -> tuple[str, ...]:
    """Return how an answer may name a value."""
    text = value_text(device.properties[key], value)
    plain = (number_text(value),) if isinstance(value, int | float) and not isinstance(value, bool) else ()
    return tuple(f" {one}{end}" for one in (text, *plain) for end in (" ", ".", ","))


def plan_kind_question(scene: Scene) -> Plan | None:
    """Which, whether any, whether all, how many of a kind are so."""
    choices = []
    for kind in dict.fromkeys(device.kind for device in scene.site.devices.values()):
        words = group_words(kind)
        same = [one for one in scene.site.devices.values() if one.kind == kind and scene.state[one.name]]
        keys = {key for one in same for key, value in scene.state[one.name].items() if isinstance(value, bool)}
        for key in sorted(keys):
            having = [one for one in same if key in one.properties]
            if not words or not 1 < len(having) <= MOST_OF_A_KIND:
                continue
            asked = scene.corpus.property(having[0], key)
            for form in ("which", "which_not", "how_many", "any", "all"):
                choices += [(having, key, form, one, words) for one in side(getattr(asked, form), scene.held_out)]
    if not choices:
        return None
    devices, key, form, template, words = scene.rng.choice(choices)
    wanted = form != "which_not"
    if scene.rng.random() < BY_STATE_SHARE:
        form, wanted = scene.rng.choice(("which", "how_many", "any", "all")), scene.rng.random() < 0.5
        template = scene.rng.choice(side(scene.corpus.form("groups", f"{form}_state"), scene.held_out))
    label = value_text(devices[0].properties[key], wanted)
    ask = scene.typed(template.format(plural=words.plural, singular=words.singular, state=label))
    having = [one for one in devices if scene.state[one.name][key] is wanted]
    facts = "; ".join(f"{one.name}:{facts_text(scene.state[one.name])}" for one in devices)
    asked_for = form.replace("_", " ")
    thought = f"{asked_for}: {facts}; {label}: {', '.join(one.name for one in having) or 'none'}."
    has = tuple((one.title.lower(),) for one in having) if form in ("which", "which_not") else ()
    known = {one.name: known_device(one, scene.state[one.name]) for one in devices}
    answer = answer_about_kind(asked_for, list(known.values()), [known[one.name] for one in having], label)
    return Plan("kind_question", ask, (template,), thought, answer=answer, answer_has=has)
