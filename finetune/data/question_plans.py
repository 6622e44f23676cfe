"""Plans in which a name fits several devices: the person is asked which, and what was wanted is done on the answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from devices.site.describe import CHOICES
from devices.site.tools import Command, action_of
from edge_agent.agent.naming import Naming
from finetune.data import phrases
from finetune.data.held_out import side
from finetune.data.scene import Plan, Scene, is_plain, needed_action, wanted_text


def plan_which_one(scene: Scene) -> Plan | None:
    """A request with a part of a name that other devices have too, and the answer; None if there is no such part."""
    words = Counter(word for device in scene.site.devices.values() for word in {*device.title.split()})
    parts = {
        name: shared
        for name, device in scene.site.devices.items()
        if (shared := [word for word in device.title.split() if words[word] > 1])
    }
    command = needed_action(scene, lambda device, action: device.name in parts and is_plain(device, action))
    if command is None:
        return None
    _, action = action_of(scene.site, command)
    part = scene.rng.choice(parts[command.device])
    template = scene.rng.choice(side(action.requests, scene.held_out))
    said = scene.worded(template).format(device=scene.with_article(part), **command.input)
    ask, frames = scene.finish(said)
    naming = Naming(scene.site)
    if (question := naming.question(ask, [command])) is None:
        return None
    candidates = [scene.site.devices[name] for name in question.candidates]
    titles = tuple((one.title,) for one in candidates) if len(candidates) <= CHOICES else ()
    meant = scene.rng.choice(candidates)
    rest = " ".join(word for word in meant.title.split() if word.casefold() not in question.said.split())
    name = rest if scene.rng.random() < 0.7 and naming.answered(question, rest) == (meant.name,) else meant.title
    then = _plan_answer(scene, replace(command, device=meant.name), name)
    answer_has = (("?",), *titles)
    return Plan(
        "which_one", ask, (template, *frames), question.thought, answer=question.text, answer_has=answer_has, then=then
    )


def _plan_answer(scene: Scene, command: Command, name: str) -> Plan:
    """Return the answer to the question, with a name of the device that is meant, and what is done then."""
    template = scene.rng.choice(side(phrases.load_templates().which_one, scene.held_out))
    ask = phrases.punctuate(template.format(name), scene.rng)
    return Plan("which_one", ask, (template,), wanted_text(scene, name, command) + ".", ((command,),))
