"""`videobert index`: bring an index up to date with its sources."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from indexer.cli import console
from indexer.cli.app import app
from indexer.cli.progress import ProgressDisplay
from indexer.config import DEFAULT_MODEL, DEFAULT_SAMPLING_MODE, INT8_MODEL, RunConfig, SamplingConfig

if TYPE_CHECKING:
    from indexer.default_model import DefaultModel
    from indexer.pipeline import RunSummary


@app.command(epilog="Example: videobert index my-videos --into my-index")
def index(
    sources: list[str] = typer.Argument(
        metavar="SOURCE",
        help="Videos, folders, quoted globs, manifests (.txt, .csv, .parquet with a path column); or s3:// URIs.",
        show_default=False,
    ),
    into: str = typer.Option(
        ..., "--into", metavar="INDEX", help="Folder or s3:// URI of the index; created if new.", show_default=False
    ),
    model: str | None = typer.Option(
        None,
        help=f"{console.MODEL_HELP} If not given: the model of the index; for a new one {INT8_MODEL} where this "
        f"processor is faster by 8-bit integers, and {DEFAULT_MODEL} elsewhere, on GPUs and on clusters.",
        show_default=False,
    ),
    fps: float = typer.Option(SamplingConfig.frame_rate_hz, "--fps", help="Frames looked at per second of video."),
    segment_length: float = typer.Option(
        SamplingConfig.segment_length_s, "--segment-length", metavar="SECONDS", help="Longest moment."
    ),
    sampling: str | None = typer.Option(
        None,
        help="Which frame stands for each span of 1/fps seconds. exact: the one shown in its middle. auto: a key frame "
        "less than 1/fps seconds from there, else about the middle, never from another moment. keyframes: the nearest "
        "key frame, up to 30 s away; coarser and much faster. If not given: as the index was made, "
        f"{DEFAULT_SAMPLING_MODE} for a new one.",
        show_default=False,
    ),
    prune: bool = typer.Option(
        False,
        "--prune",
        help="Remove videos that the sources no longer hold; not those of a folder that is there and empty.",
    ),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Try failed videos again, even if unchanged."),
    limit: int | None = typer.Option(
        None, min=1, help="Stop after this many new or changed videos.", show_default=False
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done, and do nothing."),
    address: str | None = typer.Option(
        None,
        metavar="RAY",
        help='Ray cluster to join, e.g. "auto"; without it Ray runs on this machine.',
        show_default=False,
    ),
    workers: int | None = typer.Option(
        None, min=1, help="Worker processes; one a core if not given, a core a GPU left free.", show_default=False
    ),
    device: str = typer.Option(RunConfig.device, help="What encodes the frames: cpu, cuda or auto."),
    decoder: str = typer.Option(
        RunConfig.decoder,
        help="What decodes the videos: cpu, or nvdec for NVIDIA GPUs; pays where cores are few and pictures large.",
    ),
    profile: bool = typer.Option(False, "--profile", help="Say where the time went, phase by phase."),
    json: bool = console.JsonOption,
) -> int:
    """Index videos: new ones are added, changed ones replaced, unchanged ones skipped.

    A run that was stopped or killed goes on where it was when the same command is run again. Ray encodes the videos; up
    to about a hundred short ones are encoded by this process, which is done before Ray would be.
    """
    from indexer.pipeline import RunSummary, index_videos, plan_run

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
        plan, missing = plan_run(sources, into, run)
        summary = RunSummary(
            indexed=min(plan.num_to_encode, limit or plan.num_to_encode),
            unchanged=plan.num_unchanged + plan.num_still_failed,
            failed=len(missing),
            removed=len(plan.vanished) if prune else 0,
            spared=plan.spared if prune else {},
        )
        _report(summary, json=json, prefix="dry run, nothing done: ")
        _say_spared(summary)
        return console.EXIT_DONE
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
    if decoder != RunConfig.decoder and summary.profile:
        console.say(
            f"decoded by GPUs: {summary.profile['num_on_gpu']} videos or parts of long ones; by the CPU: the rest"
        )
    return report_run(summary, into, json=json, profile=profile)


def _say_where_int8_does_not_pay(model: str, device: str) -> None:
    from model.facts import model_config

    if not getattr(model_config(model), "has_int8_frames", False):
        return
    from model.int8_hardware import why_int8_does_not_pay

    if reason := why_int8_does_not_pay(device):
        console.say(f"note: 8-bit integers do not pay here: {reason}; {DEFAULT_MODEL} instead of {model} is no slower")


def _say_default_model(chosen: DefaultModel) -> None:
    console.say(f"model of the new index: {chosen.name}, as {chosen.reason}; --model names another")


def report_run(summary: RunSummary, index: str, *, json: bool, profile: bool = False) -> int:
    """Prints what a run did, and returns the exit code for it."""
    _report(summary, json=json, profile=profile)
    if summary.failed > summary.kept:
        console.say(f"{summary.failed - summary.kept} videos failed: see `videobert failures {index}`")
    if summary.kept:
        console.say(
            f"{summary.kept} videos that the index holds cannot be read now, and stay in it as they were; "
            "`--prune` removes what is gone"
        )
    _say_spared(summary)
    return console.EXIT_SOME_FAILED if summary.failed else console.EXIT_DONE


def _say_spared(summary: RunSummary) -> None:
    for folder, num_videos in sorted(Counter(summary.spared.values()).items()):
        console.say(
            f"{num_videos} videos of the empty folder {folder!r} were not pruned, as a disk may not be mounted there: "
            "mount it, or delete the folder if they are gone for good"
        )


def _report(summary: RunSummary, *, json: bool, profile: bool = False, prefix: str = "") -> None:
    if json:
        console.print_json(summary.to_dict(profile=profile))
        return
    _print_summary(summary, prefix)
    if profile and summary.profile:
        _print_profile(summary.profile)


def _print_summary(summary: RunSummary, prefix: str) -> None:
    if not (summary.indexed or summary.segments or summary.removed or summary.video_s):
        print(f"{prefix}nothing changed: {summary.unchanged} videos are in the index already ({summary.wall_s:.1f} s)")
        return
    speed = f", {summary.video_s / summary.wall_s:.1f} x real time" if summary.wall_s and summary.video_s else ""
    print(
        f"{prefix}{summary.indexed} indexed, {summary.unchanged} unchanged, {summary.failed} failed, "
        f"{summary.removed} removed; {summary.segments} moments from {console.clock(summary.video_s)} of video "
        f"in {summary.wall_s:.1f} s{speed}"
    )


def _print_profile(profile: dict[str, Any]) -> None:
    """The accounts of the workers, of the models that they share on GPUs, and of the driver; each adds up."""
    accounts = [
        (f"{profile['num_workers']} workers", profile["workers"], profile["worker_s"]),
        ("driver", profile["driver"], profile["wall_s"]),
    ]
    if "models" in profile:
        accounts.insert(1, (f"{profile['num_models']} models", profile["models"], profile["model_s"]))
    rows = [
        (who, phase, f"{seconds:.1f}", f"{seconds / total_s:.1%}" if total_s else "")
        for who, phases, total_s in accounts
        for phase, seconds in [*phases.items(), ("in all", total_s)]
    ]
    print()
    console.print_table(["who", "phase", "seconds", "share"], rows, right=("seconds", "share"))
