"""The kinds of exchanges, with how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from devices.site.site import Site
from finetune.data.action_plans import (
    plan_already,
    plan_call,
    plan_confirmed,
    plan_failed,
    plan_group,
    plan_in_order,
    plan_interlocked,
    plan_several,
    plan_value,
)
from finetune.data.answer_plans import (
    plan_missing_argument,
    plan_missing_device,
    plan_out_of_range,
    plan_question,
    plan_recital,
    plan_small_talk,
    plan_unsupported,
)
from finetune.data.area_plans import plan_area, plan_everything, plan_except, plan_list, plan_missing_area
from finetune.data.level_plans import has_bits, plan_bit
from finetune.data.people.axes import plan_axis
from finetune.data.people.conditions import plan_condition
from finetune.data.people.corrections import plan_correction
from finetune.data.people.many import plan_many, plan_two_records
from finetune.data.people.state_questions import plan_asked_question, plan_kind_question
from finetune.data.people.wishes import (
    plan_chitchat,
    plan_hint,
    plan_later,
    plan_negated,
    plan_relative,
    plan_report,
    plan_unable,
)
from finetune.data.question_plans import plan_which_one
from finetune.data.scene import Plan, Scene
from finetune.data.scene_plans import plan_missing_scene, plan_scene

MAKERS: dict[str, tuple[float, Callable[[Scene], Plan | None]]] = {
    "call": (0.22, plan_call),
    "several": (0.09, plan_several),
    "in_order": (0.09, plan_in_order),
    "group": (0.05, plan_group),
    "area": (0.06, plan_area),
    "everything": (0.02, plan_everything),
    "except": (0.03, plan_except),
    "list": (0.03, plan_list),
    "missing_area": (0.02, plan_missing_area),
    "question": (0.18, plan_question),
    "recital": (0.14, plan_recital),
    "already": (0.05, plan_already),
    "out_of_range": (0.08, plan_out_of_range),
    "missing_argument": (0.05, plan_missing_argument),
    "missing_device": (0.05, plan_missing_device),
    "unsupported": (0.03, plan_unsupported),
    "policy": (0.03, plan_interlocked),
    "confirmation": (0.03, plan_confirmed),
    "failure": (0.04, plan_failed),
    "small_talk": (0.03, plan_small_talk),
    "bit": (0.04, plan_bit),
    "scene": (0.06, plan_scene),
    "missing_scene": (0.01, plan_missing_scene),
    "value": (0.0, plan_value),  # beside people's words only: one request in five sets a number
    "which_one": (0.0, plan_which_one),  # on random sites only: the agent asks by itself where a model does not
}

PEOPLE_MAKERS: dict[str, tuple[float, Callable[[Scene], Plan | None]]] = {  # of finetune/asks, beside those above
    "relative": (0.24, plan_relative),
    "hint": (0.3, plan_hint),
    "negated": (0.1, plan_negated),
    "report": (0.09, plan_report),
    "later": (0.1, plan_later),
    "condition": (0.18, plan_condition),
    "correction": (0.15, plan_correction),
    "asked_question": (0.2, plan_asked_question),
    "kind_question": (0.15, plan_kind_question),
    "many": (0.4, plan_many),
    "axis": (0.12, plan_axis),
    "two_records": (0.12, plan_two_records),
    "chitchat": (0.04, plan_chitchat),
    "unable": (0.07, plan_unable),
}
ALL_MAKERS = MAKERS | PEOPLE_MAKERS
WISHES = {  # named first in the thought, if people's words are among the requests; other makers there name their own
    "several": "both",
    "in_order": "in turn",
    "missing_argument": "no value",
    **dict.fromkeys(("question", "recital", "follow_question"), "a question"),
}
ONLY_WHERE: dict[str, Callable[[Site], bool]] = {  # elsewhere they have no weight, and the data of such sites stays
    "bit": has_bits,
    "scene": lambda site: bool(site.scenes),
    "missing_scene": lambda site: bool(site.scenes),
}


def usual_weights(site: Site) -> dict[str, float]:
    """Return how often each kind that fits a site is drawn."""
    fits = (kind for kind in MAKERS if kind not in ONLY_WHERE or ONLY_WHERE[kind](site))
    return {kind: MAKERS[kind][0] for kind in fits}
