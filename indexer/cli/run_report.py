"""What a run of `videobert index` or `retry` did: a line or JSON on stdout, what to do next on stderr."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from indexer.cli import console
from indexer.config import RunConfig

if TYPE_CHECKING:
    from indexer.pipeline import RunSummary


def report_run(
    summary: RunSummary, index: str, *, json: bool, profile: bool = False, decoder: str = RunConfig.decoder
) -> int:
    """Prints what a run did, and returns the exit code for it."""
    if decoder != RunConfig.decoder and summary.profile:
        console.say(
            f"decoded by GPUs: {summary.profile['num_on_gpu']} videos or parts of long ones; by the CPU: the rest"
        )
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


def report_dry_run(summary: RunSummary, *, json: bool) -> int:
    """Likewise, what it would do."""
    _report(summary, json=json, prefix="dry run, nothing done: ")
    _say_spared(summary)
    return console.EXIT_DONE


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
