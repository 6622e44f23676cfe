"""The page that a training run leaves: how the loss fell, and what the run was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.progress import duration_text
from edge_agent.run_facts import RunFacts
from finetune.pages import render_page

WIDTH, HEIGHT = 960, 320
SMOOTHED_STEPS = 20
Series = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Plot:
    """Points of the curves in the plot's own units, as SVG has them, and where the axes are marked.

    Attributes:
        losses: of single steps.
        smooth: their mean over the last steps.
        held_out: on held-out rows; "" if there were none.
        dots: x and y of the held-out losses.
        levels: y and the loss there.
        steps: x and the step there.
    """

    losses: str
    smooth: str
    held_out: str
    dots: list[tuple[float, float]]
    levels: list[tuple[float, str]]
    steps: list[tuple[float, str]]


def plot_of(losses: Series, held_out: Series) -> Plot:
    """Return the plot of at least one loss. Its axis begins at 0; the highest hundredth of losses may be cut off."""
    values = [loss for _, loss in losses]
    window = max(1, min(SMOOTHED_STEPS, len(values) // 5))
    smooth = [
        (step, sum(values[max(0, at - window + 1) : at + 1]) / min(at + 1, window))
        for at, (step, _) in enumerate(losses)
    ]
    last = max(step for step, _ in losses)
    shown = sorted([*values, *(loss for _, loss in held_out)])
    top = max(shown[len(shown) * 99 // 100 - 1], 1e-6) * 1.05

    def place(step: int, loss: float) -> tuple[float, float]:
        return round(WIDTH * step / last, 1), round(HEIGHT * (1 - min(loss, top) / top), 1)

    def line(series: Series) -> str:
        return " ".join("{},{}".format(*place(*point)) for point in series)

    return Plot(
        losses=line(losses),
        smooth=line(smooth),
        held_out=line(held_out),
        dots=[place(*point) for point in held_out],
        levels=[(place(0, top * share)[1], f"{top * share:.3g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        steps=[(place(step, 0)[0], str(step)) for step in sorted({round(last * share / 4) for share in range(5)})],
    )


def run_page(facts: RunFacts) -> str:
    """Return the page of a run as one HTML file, without scripts and outside resources."""
    return render_page(
        "run.html.jinja",
        facts=facts,
        plot=plot_of(facts.losses, facts.held_out_losses),
        width=WIDTH,
        height=HEIGHT,
        duration=duration_text(facts.seconds),
    )
