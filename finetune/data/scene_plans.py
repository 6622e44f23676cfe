"""Plans about a site's own scenes: one call that stands for several commands, and scenes that are not there."""

from __future__ import annotations

from devices.site.phrasings import load_phrasings
from devices.site.tools import SCENE_TOOL, ToolCall
from finetune.data.held_out import side
from finetune.data.scene import Plan, Scene


def plan_scene(scene: Scene) -> Plan | None:
    """A scene is turned on; what needs a yes in it gets one, or does not."""
    if not scene.site.scenes:
        return None
    name = scene.rng.choice(list(scene.site.scenes))
    one = scene.site.scenes[name]
    spoken = scene.rng.choice([one.title, one.title, *one.aliases])
    ask, templates = _request(scene, spoken)
    thought = f"{spoken} is {name}, {SCENE_TOOL}."
    step = (ToolCall(SCENE_TOOL, {"scene": name}),)
    return Plan("scene", ask, templates, thought, (step,), is_confirmed=scene.rng.random() < 0.5)


def plan_missing_scene(scene: Scene) -> Plan | None:
    """A scene that the site does not have: say so."""
    site = scene.site
    called = [
        name for kind in (site.scenes, site.groups) for one in kind.values() for name in (one.title, *one.aliases)
    ]
    unknown = [name for name in load_phrasings().scenes if name not in called]
    if not site.scenes or not unknown:
        return None
    spoken = scene.rng.choice(unknown)
    ask, templates = _request(scene, spoken)
    answer, has = f"There is no {spoken} here.", (("there is no", "not here", "no scene"),)
    return Plan("missing_scene", ask, templates, f"{spoken} is no scene.", answer=answer, answer_has=has)


def _request(scene: Scene, spoken: str) -> tuple[str, tuple[str, ...]]:
    template = scene.rng.choice(side(load_phrasings().scene_requests, scene.held_out))
    return scene.finish(scene.worded(template).format(scene=spoken), template)
