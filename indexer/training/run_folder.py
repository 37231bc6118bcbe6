"""The folder of a run: made beside the file that is to be written, prepared once, found again when a run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexer.errors import StorageError, UsageError
from indexer.training.items import Items
from indexer.training.job import Job
from indexer.training.monitor import TENSORBOARD, write_json
from indexer.training.records import Problem
from model.safetensors_file import SUFFIX
from model.training_state import STATE_FILE

PROBLEMS_FILE = "left_out.tsv"
_PREPARED = "prepared.json"
_FEWEST_ITEMS_A_BATCH, _BATCHES_AN_EPOCH = 8, 8  # where the batch size is chosen by the amount of data


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is ready to be trained.

    Attributes:
        job: also saved in the run folder.
        items, held_out: how many are trained on, and kept back.
        left_out: rows that cannot be used; all of them are in left_out.tsv.
        goes_on: there is a state of a run that was stopped.
    """

    job: Job
    items: int
    held_out: int
    left_out: list[Problem]
    goes_on: bool


def run_folder(out: str, *, resume: bool) -> Path:
    """The folder of a run, beside the file that it will write; made if it is not there.

    Args:
        out: the file.
        resume: go on from a state that is there; otherwise it is deleted.

    Raises:
        UsageError: `out` has another suffix, or its folder does not exist.
        StorageError: the folder cannot be made.
    """
    path = Path(out).absolute()
    if path.suffix != SUFFIX:
        raise UsageError(f"--out must end in {SUFFIX}, got {out!r}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of --out does not exist: {str(path.parent)!r}; make it first")
    if path.is_dir():
        raise UsageError(f"{out!r} is a folder: name a file to write")
    folder = path.with_suffix(".run")
    try:
        folder.mkdir(exist_ok=True)
        if not resume:
            (folder / STATE_FILE).unlink(missing_ok=True)
        if not (folder / STATE_FILE).exists():
            shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"the run folder {str(folder)!r} cannot be made: {error.strerror or error}") from error
    return folder


def once(folder: Path, wanted: Mapping[str, Any], prepare: Callable[[], list[Problem]]) -> list[Problem]:
    """Prepares the folder unless it was prepared for the same; returns what was left out."""
    path = folder / _PREPARED
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if found["wanted"] == json.loads(json.dumps(wanted)):
            return [Problem(**problem) for problem in found["problems"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    path.unlink(missing_ok=True)
    try:
        problems = prepare()
        write_json(path, {"wanted": wanted, "problems": [vars(problem) for problem in problems]})
    except OSError as error:
        raise StorageError(f"the run folder {str(folder)!r} cannot be written: {error.strerror or error}") from error
    return problems


def ready(job: Job, batch_size: int | None, left_out: list[Problem]) -> Prepared:
    """Settles the batch size and saves the job."""
    folder = Path(job.folder)
    held_out = int(Items.load(folder).held_out.sum())
    count = len(Items.load(folder).names) - held_out
    size = batch_size or min(job.settings.batch_size, max(_FEWEST_ITEMS_A_BATCH, count // _BATCHES_AN_EPOCH))
    job = replace(job, settings=replace(job.settings, batch_size=min(size, count)))
    job.save()
    lines = ["item\treason", *(f"{problem.name}\t{problem.reason}" for problem in left_out)]
    (folder / PROBLEMS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
    goes_on = (folder / STATE_FILE).exists()
    return Prepared(job=job, items=count, held_out=held_out, left_out=left_out, goes_on=goes_on)
