"""Options that commands of several packages take, so that each is spelled and explained in one way."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_SITE_HELP = "A site that ships with Edgewright, or a .yaml file."
Site = Annotated[str, typer.Option("--site", help=_SITE_HELP)]
Toolset = Annotated[str, typer.Option("--tools", help="A toolset's .yaml file, instead of a site.")]
SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help=_SITE_HELP)]
Live = Annotated[bool, typer.Option("--live", help="Real devices, through the site's drivers.")]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm beforehand what needs confirmation.")]
Mode = Annotated[
    Literal["auto", "assist", "dry_run", "locked"],
    typer.Option(
        "--mode",
        help="auto: as the site says; assist: every action needs a yes; dry_run: decide, move nothing; locked: refuse."
        " Safe actions such as stop are carried out in all of them.",
    ),
]
TorchDevice = Annotated[str, typer.Option("--device", help="cpu or cuda, for Hugging Face models.")]
Intents = Annotated[
    str,
    typer.Option("--intents", metavar="LANGUAGE", help="Home Assistant's sentences first (en, de), then the model."),
]
GpuLayers = Annotated[int, typer.Option("--gpu-layers", help="llama.cpp layers on the GPU; -1 for all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
