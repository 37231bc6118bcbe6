"""`videobert train` and `videobert pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from indexer.cli import console, run_options
from indexer.cli.app import app
from indexer.cli.training_progress import TrainingDisplay
from indexer.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from indexer.training.run_folder import Prepared
    from model.training_plan import TrainingSettings

_MOST_PROBLEMS_SHOWN = 5
# Where nothing is said: epochs, largest batch, learning rate, moving average.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "captions": {"num_epochs": 12, "batch_size": 256, "learning_rate": 1e-3, "average_decay": 0.99},
    "classes": {"num_epochs": 40, "batch_size": 64, "learning_rate": 1e-3, "average_decay": 0.9},
    "pretrain": {"num_epochs": 10, "batch_size": 64, "learning_rate": 3e-4, "average_decay": 0.0},
}

_Out = typer.Option(
    ..., "--out", metavar="FILE.safetensors", help="File to write; the run folder is beside it.", show_default=False
)
_Epochs = typer.Option(None, min=1, help="Passes over the data.", show_default="12 captions, 40 classes, 10 pretrain")
_BatchSize = typer.Option(
    None, min=1, help="Items a step, of all workers together.", show_default="by the amount of data"
)
_Rate = typer.Option(None, "--lr", help="Highest learning rate.", show_default="0.001; pretrain: 0.0003")
_HeldOut = typer.Option(0.1, min=0.0, max=0.9, help="Share kept back for validation.")
_Patience = typer.Option(0, min=0, help="Stop after so many epochs without a better validation; 0: never.")
_Seed = typer.Option(0, min=0, help="Of everything random.")
_Workers = typer.Option(
    None, min=1, help="Processes that share each batch; one (on GPUs: one each) if not given.", show_default=False
)
_Resume = typer.Option(True, help="Go on where a run with the same --out was stopped, or start anew.")


@app.command(epilog="Example: videobert train photos-with-captions.csv --out mine.safetensors")
def train(
    data: str = typer.Argument(
        metavar="DATA",
        help="Folder with one folder a class, or a .csv, .tsv or .parquet with a path and captions or labels.",
        show_default=False,
    ),
    out: str = _Out,
    model: str = typer.Option(DEFAULT_MODEL, help="Model preset, or checkpoint to start from."),
    task: str | None = typer.Option(
        None, help="captions or classes; recognised by the columns if not given.", show_default=False
    ),
    epochs: int | None = _Epochs,
    batch_size: int | None = _BatchSize,
    lr: float | None = _Rate,
    held_out: float = _HeldOut,
    patience: int = _Patience,
    max_frames: int = typer.Option(32, min=1, max=600, help="Frames looked at of a video."),
    seed: int = _Seed,
    workers: int | None = _Workers,
    device: str = run_options.Device,
    address: str | None = run_options.Address,
    cache: str | None = typer.Option(
        None, metavar="FOLDER", help="Where frame features are kept.", show_default="~/.cache/videobert/features"
    ),
    resume: bool = _Resume,
    json: bool = console.JsonOption,
) -> None:
    """Train on your own captions or classes: writes a checkpoint for --model, or a head for `classify --head`.

    A run that was stopped or killed goes on where it was when the same command is run again.
    """
    from indexer.training.prepare import prepare_training

    def settings(kind: str) -> TrainingSettings:
        return _settings(kind, epochs=epochs, lr=lr, patience=patience, seed=seed, workers=workers)

    with console.sigterm_like_ctrl_c(), TrainingDisplay() as display:
        prepared = prepare_training(
            data,
            out,
            model=model,
            task=task,
            settings=settings,
            batch_size=batch_size,
            held_out_share=held_out,
            max_frames=max_frames,
            cache=Path(cache) if cache else _cache_folder(),
            resume=resume,
            on_progress=display.look,
        )
        result = _run(prepared, display, workers, device, address)
    _report(result, prepared, json=json)


@app.command(epilog="Example: videobert pretrain my-index --out pretrained.safetensors")
def pretrain(
    index: str = console.IndexArgument,
    out: str = _Out,
    model: str | None = typer.Option(None, help="Model that made the index.", show_default="that of the index"),
    epochs: int | None = _Epochs,
    batch_size: int | None = _BatchSize,
    lr: float | None = _Rate,
    held_out: float = _HeldOut,
    patience: int = _Patience,
    branching: int | None = typer.Option(
        None, min=2, help="Branches of the visual vocabulary's tree.", show_default="by the number of frames, up to 12"
    ),
    levels: int | None = typer.Option(
        None, min=1, max=6, help="Levels of it.", show_default="by the number of frames, up to 4"
    ),
    masked_text: float = typer.Option(1.0, min=0.0, help="Weight of guessing hidden words."),
    masked_visual: float = typer.Option(1.0, min=0.0, help="Weight of guessing hidden visual words."),
    alignment: float = typer.Option(1.0, min=0.0, help="Weight of telling whether a transcript belongs to a moment."),
    contrastive: float = typer.Option(1.0, min=0.0, help="Weight of finding the transcript of a moment."),
    seed: int = _Seed,
    workers: int | None = _Workers,
    device: str = run_options.Device,
    address: str | None = run_options.Address,
    resume: bool = _Resume,
    json: bool = console.JsonOption,
) -> None:
    """Pretrain the fusion tower on an index's own features and transcripts: no video is decoded again."""
    from indexer.training.prepare import prepare_pretraining
    from model.pretraining import PretrainingSettings

    with console.sigterm_like_ctrl_c(), TrainingDisplay() as display:
        prepared = prepare_pretraining(
            index,
            out,
            model=model,
            settings=_settings("pretrain", epochs=epochs, lr=lr, patience=patience, seed=seed, workers=workers),
            pretraining=PretrainingSettings(
                masked_text_weight=masked_text,
                masked_visual_weight=masked_visual,
                alignment_weight=alignment,
                contrastive_weight=contrastive,
            ),
            batch_size=batch_size,
            held_out_share=held_out,
            branching=branching,
            num_levels=levels,
            resume=resume,
        )
        result = _run(prepared, display, workers, device, address)
    _report(result, prepared, json=json)


def _settings(
    kind: str, *, epochs: int | None, lr: float | None, patience: int, seed: int, workers: int | None
) -> TrainingSettings:
    from model.training_plan import TrainingSettings

    given = {"num_epochs": epochs, "learning_rate": lr}
    chosen = _DEFAULTS[kind] | {name: value for name, value in given.items() if value is not None}
    num_shards = max(TrainingSettings.num_shards, workers or 1)
    return TrainingSettings(**chosen, patience=patience, seed=seed, num_shards=num_shards)


def _run(
    prepared: Prepared, display: TrainingDisplay, workers: int | None, device: str, address: str | None
) -> dict[str, Any]:
    """Trains; before that, says what was left out."""
    from indexer import ray_training
    from indexer.training.job import read_result

    folder = prepared.job.folder
    for problem in prepared.left_out[:_MOST_PROBLEMS_SHOWN]:
        console.say(f"left out: {problem.name}: {problem.reason}")
    if len(prepared.left_out) > _MOST_PROBLEMS_SHOWN:
        console.say(f"{len(prepared.left_out)} rows left out in all: see {Path(folder) / 'left_out.tsv'}")
    verb = "going on with" if prepared.goes_on else "training on"
    console.say(f"{verb} {prepared.items} items, {prepared.held_out} kept back; scalars: tensorboard --logdir {folder}")
    ray_training.train_on_ray(folder, num_workers=workers, device=device, address=address, on_progress=display.update)
    return read_result(folder)


def _report(result: dict[str, Any], prepared: Prepared, *, json: bool) -> None:
    if json:
        console.print_json({**result, "held_out": prepared.held_out, "left_out": len(prepared.left_out)})
        return
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result["metrics"].items())
    print(f"{result['out']} written after {result['steps']} steps, {result['wall_s']:.1f} s")
    print(
        f"on the {prepared.held_out} items kept back: {figures}" if figures else "nothing was kept back to measure on"
    )


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "videobert", "features")
