"""`videobert index`: bring an index up to date with its sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from indexer.cli import console, run_options
from indexer.cli.app import app
from indexer.cli.progress import ProgressDisplay
from indexer.cli.run_report import report_dry_run, report_run
from indexer.config import DEFAULT_MODEL, DEFAULT_SAMPLING_MODE, INT8_MODEL, RunConfig, SamplingConfig

if TYPE_CHECKING:
    from indexer.default_model import DefaultModel
    from indexer.pipeline import RunSummary


_Sources = typer.Argument(
    metavar="SOURCE",
    help="Videos, folders, quoted globs, manifests (.txt, .csv, .parquet with a path column); or s3:// URIs.",
    show_default=False,
)
_Into = typer.Option(
    ..., "--into", metavar="INDEX", help="Folder or s3:// URI of the index; created if new.", show_default=False
)
_Model = typer.Option(
    None,
    help=f"{console.MODEL_HELP} If not given: the model of the index; for a new one {INT8_MODEL} where this "
    f"processor is faster by 8-bit integers, and {DEFAULT_MODEL} elsewhere, on GPUs and on clusters.",
    show_default=False,
)
_Fps = typer.Option(SamplingConfig.frame_rate_hz, "--fps", help="Frames looked at per second of video.")
_SegmentLength = typer.Option(
    SamplingConfig.segment_length_s, "--segment-length", metavar="SECONDS", help="Longest moment."
)
_Sampling = typer.Option(
    None,
    help="Which frame stands for each span of 1/fps seconds. exact: the one shown in its middle. auto: a key frame "
    "less than 1/fps seconds from there, else about the middle, never from another moment. keyframes: the nearest "
    "key frame, up to 30 s away; coarser and much faster. If not given: as the index was made, "
    f"{DEFAULT_SAMPLING_MODE} for a new one.",
    show_default=False,
)
_Prune = typer.Option(
    False,
    "--prune",
    help="Remove videos that the sources no longer hold; not those of a folder that is there and empty.",
)
_RetryFailed = typer.Option(False, "--retry-failed", help="Try failed videos again, even if unchanged.")
_Limit = typer.Option(None, min=1, help="Stop after this many new or changed videos.", show_default=False)
_DryRun = typer.Option(False, "--dry-run", help="Say what would be done, and do nothing.")
_Workers = typer.Option(
    None, min=1, help="Worker processes; one a core if not given, a core a GPU left free.", show_default=False
)
_Profile = typer.Option(False, "--profile", help="Say where the time went, phase by phase.")


@app.command(epilog="Example: videobert index my-videos --into my-index")
def index(
    sources: list[str] = _Sources,
    into: str = _Into,
    model: str | None = _Model,
    fps: float = _Fps,
    segment_length: float = _SegmentLength,
    sampling: str | None = _Sampling,
    prune: bool = _Prune,
    retry_failed: bool = _RetryFailed,
    limit: int | None = _Limit,
    dry_run: bool = _DryRun,
    address: str | None = run_options.Address,
    workers: int | None = _Workers,
    device: str = run_options.Device,
    decoder: str = run_options.Decoder,
    profile: bool = _Profile,
    json: bool = console.JsonOption,
) -> int:
    """Index videos: new ones are added, changed ones replaced, unchanged ones skipped.

    A run that was stopped or killed goes on where it was when the same command is run again. Ray encodes the videos; up
    to about two hundred short ones are encoded by this process, which is done before Ray would be.
    """
    from indexer.pipeline import index_videos

    frames = SamplingConfig(frame_rate_hz=fps, segment_length_s=segment_length, mode=sampling)
    run = RunConfig(
        address=address,
        num_workers=workers,
        device=device,
        limit=limit,
        prune=prune,
        retry_failed=retry_failed,
        decoder=decoder,
    )
    if dry_run:
        return report_dry_run(_would_do(sources, into, run), json=json)
    if model is not None and address is None:  # of a cluster's machines nothing is known here
        _say_where_int8_does_not_pay(model, device)
    with console.sigterm_like_ctrl_c(), ProgressDisplay() as display:
        summary = index_videos(
            sources,
            into,
            model=model,
            sampling=frames,
            run=run,
            on_progress=display.update,
            on_default_model=_say_default_model,
        )
    return report_run(summary, into, json=json, profile=profile, decoder=decoder)


def _would_do(sources: list[str], into: str, run: RunConfig) -> RunSummary:
    from indexer.pipeline import RunSummary, plan_run

    plan, missing = plan_run(sources, into, run)
    return RunSummary(
        indexed=min(plan.num_to_encode, run.limit or plan.num_to_encode),
        unchanged=plan.num_unchanged + plan.num_still_failed,
        failed=len(missing),
        removed=len(plan.vanished) if run.prune else 0,
        spared=plan.spared if run.prune else {},
    )


def _say_where_int8_does_not_pay(model: str, device: str) -> None:
    from model.facts import model_config

    if not getattr(model_config(model), "has_int8_frames", False):
        return
    from model.int8_hardware import why_int8_does_not_pay

    if reason := why_int8_does_not_pay(device):
        console.say(f"note: 8-bit integers do not pay here: {reason}; {DEFAULT_MODEL} instead of {model} is no slower")


def _say_default_model(chosen: DefaultModel) -> None:
    console.say(f"model of the new index: {chosen.name}, as {chosen.reason}; --model names another")
