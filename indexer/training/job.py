"""One training run as plain data, and the function that every worker calls with it.

RUN/                 beside the checkpoint, named after it
  job.json           what is trained, on what and how
  items.json, *.npy  the data, prepared once
  state.pt           where the run is; deleted when it is done
  tensorboard/       scalars
  metrics/           how good the result is
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import StorageError
from indexer.training.monitor import METRICS, Monitor, write_json
from model.training_plan import TrainingSettings

if TYPE_CHECKING:
    from model.training_plan import TrainingReport

PRETRAIN = "pretrain"
_JOB, _RESULT = "job.json", "result.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs to know.

    Attributes:
        kind: "captions", "classes" or "pretrain".
        folder: the run folder, which all workers see.
        out: the file to write.
        model: preset or checkpoint that training starts from.
        settings: how to train.
        facts: what else decides the course: fingerprints of data and model.
        options: of the kind, e.g. the weights of objectives.
    """

    kind: str
    folder: str
    out: str
    model: str
    settings: TrainingSettings
    facts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        write_json(Path(self.folder) / _JOB, asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> Job:
        values = json.loads((Path(folder) / _JOB).read_text(encoding="utf-8"))
        return cls(**{**values, "settings": TrainingSettings(**values["settings"])})


def work(folder: str, device: str = "cpu", num_threads: int | None = None) -> None:
    """Trains the job in a run folder as one of the workers of the process group, or alone where there is none.

    The first worker writes the result: the checkpoint or the head, metrics, and result.json.

    Raises:
        TrainingError: see `Trainer.fit`.
        ModelError: the model cannot be loaded.
        StorageError: the result cannot be written.
    """
    import torch

    from indexer.training.kinds import make_task, write_result
    from model.data_parallel import Ranks
    from model.training import Trainer
    from model.training_plan import describe_run
    from model.training_state import STATE_FILE

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    job, ranks, started_s = Job.load(folder), Ranks.current(), time.monotonic()
    run = Path(folder)
    task = make_task(job, torch.device(device))
    run_text = describe_run(job.settings, {"kind": job.kind, **job.facts, **job.options})
    trainer = Trainer(task, job.settings, folder=run, run=run_text, ranks=ranks)
    if ranks.rank != 0:
        trainer.fit()
        return
    try:
        (run / METRICS).mkdir(exist_ok=True)
        with Monitor(run, trainer.restore()) as monitor:
            trainer.on_step, trainer.on_epoch = monitor.on_step, monitor.on_epoch
            report = trainer.fit()
            facts = write_result(job, task)
            monitor.show_pictures(report.num_steps)
    except OSError as error:
        raise StorageError(f"the run folder {folder!r} cannot be written: {error.strerror or error}") from error
    summary = _summary(job, report, task.num_items, time.monotonic() - started_s)
    write_json(run / _RESULT, {**summary, **facts})
    (run / STATE_FILE).unlink(missing_ok=True)


def _summary(job: Job, report: TrainingReport, num_items: int, wall_s: float) -> dict[str, Any]:
    return {
        "task": job.kind,
        "out": job.out,
        "items": num_items,
        "steps": report.num_steps,
        "epochs": report.num_epochs,
        "stopped_early": report.stopped_early,
        "wall_s": round(wall_s, 1),
    }


def read_result(folder: str | Path) -> dict[str, Any]:
    """What `work` wrote at the end."""
    values: dict[str, Any] = json.loads((Path(folder) / _RESULT).read_text(encoding="utf-8"))
    return values
