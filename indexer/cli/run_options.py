"""The options of several verbs that say how a run is carried out."""

from __future__ import annotations

import typer

from indexer.config import RunConfig

Address = typer.Option(
    None,
    metavar="RAY",
    help='Ray cluster to join, e.g. "auto"; without it Ray runs on this machine.',
    show_default=False,
)
Device = typer.Option(RunConfig.device, help="What the model runs on: cpu, cuda or auto.")
Decoder = typer.Option(
    RunConfig.decoder,
    help="What decodes the videos: cpu, or nvdec for NVIDIA GPUs; pays where cores are few and pictures large.",
)
