"""What each kind of training trains, and what it writes at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from indexer.store.outfile import whole_file
from indexer.training.captions import CaptionTask, trainable_model
from indexer.training.classes import ClassTask
from indexer.training.job import PRETRAIN, Job
from indexer.training.monitor import METRICS, write_json
from indexer.training.pretraining import PretrainTask
from indexer.training.records import CAPTIONS
from model.checkpoint import save_checkpoint
from model.config import VideoBertConfig
from model.pretraining import PretrainingSettings
from model.videobert import VideoBert
from model.weights import base_checksums, load_videobert


def make_task(job: Job, device: torch.device) -> CaptionTask | ClassTask | PretrainTask:
    """The task of a job, its weights on the device."""
    folder = Path(job.folder)
    task: CaptionTask | ClassTask | PretrainTask
    if job.kind == PRETRAIN:
        options = job.options["pretraining"]
        pretraining = PretrainingSettings(**{**options, "trained_parts": tuple(options["trained_parts"])})
        task = PretrainTask(folder, load_videobert(job.model, runtime="torch", for_training=True), pretraining)
    elif job.kind == CAPTIONS:
        task = CaptionTask(folder, trainable_model(load_videobert(job.model, runtime="torch", for_training=True)))
    else:
        task = ClassTask(folder, **job.options["head"])
    task.module.to(device)
    return task


@torch.no_grad()
def write_result(job: Job, task: CaptionTask | ClassTask | PretrainTask) -> dict[str, Any]:
    """Writes the checkpoint or the head, and its metrics; returns what to say of it."""
    metrics_folder = Path(job.folder) / METRICS
    task.module.cpu().eval()
    if isinstance(task, ClassTask):
        return task.write_result(Path(job.out), metrics_folder, job.facts["frames"])
    if isinstance(task, PretrainTask):
        _save(task.module.videobert, task.config, job.out)
        metrics = task.validate() if task.metric else {}
    else:
        _save(task.module.videobert, task.module.videobert.config, job.out)
        metrics = _of_file(job, Path(job.folder))
    write_json(metrics_folder / "metrics.json", metrics)
    return {"metrics": metrics}


def _of_file(job: Job, folder: Path) -> dict[str, float]:
    """Metrics of the file as written, which is in half precision."""
    task = CaptionTask(folder, load_videobert(job.out, runtime="torch"))
    task.module.eval()
    with torch.no_grad():
        return task.validate() if task.metric else {}


def _save(model: VideoBert, config: VideoBertConfig, out: str) -> None:
    with whole_file(out, "the checkpoint", "checkpoint.safetensors") as path:
        save_checkpoint(model, config, base_checksums(config), path)
