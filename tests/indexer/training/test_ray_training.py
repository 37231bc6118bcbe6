"""The same jobs on Ray Train, with one worker and with two."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from indexer.errors import WorkerError
from indexer.ray_cluster import Cluster
from indexer.ray_training import _require_room, train_on_ray
from indexer.training.job import read_result
from model.errors import TrainingError
from model.training_state import STATE_FILE

ROOT = Path(__file__).resolve().parents[3]


def loss_curve(folder: str, name: str) -> list[float]:
    events = EventAccumulator(str(Path(folder) / "tensorboard")).Reload()
    return [event.value for event in events.Scalars(f"loss/{name}")]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves files and processes open
def test_one_worker_and_two_have_the_same_loss_curve_as_no_ray_at_all(captions, prepare, train_here, tmp_path):
    """With dropout, moving average and a contrastive loss over the whole batch, on a machine of two cores."""
    curves = {}
    for workers in (0, 1, 2):
        out = f"{workers}.safetensors"
        prepared = prepare(captions, out=out, num_epochs=6, batch_size=16, average_decay=0.9, held_out_share=0.2)
        folder = prepared.job.folder
        if workers:
            train_on_ray(folder, num_workers=workers, device="cpu")
        else:
            train_here(prepared)
        curves[workers] = loss_curve(folder, "contrastive")
        assert read_result(folder)["steps"] == len(curves[workers]) == 12
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[1], abs=1e-4)
    one, two = (load_file(tmp_path / f"{workers}.safetensors") for workers in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=1e-2)  # written in half precision


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_on_a_gpu_learns_as_well_as_one_on_the_cpu(captions, colour_folder, prepare, train_here):
    """In bfloat16, its process group that of NCCL. Random numbers differ between devices, so losses are only alike."""
    ends = {}
    for device in ("cpu", "cuda"):
        jobs = [prepare(captions, out=f"{device}.safetensors", num_epochs=20, batch_size=16)]
        jobs += [prepare(colour_folder, out=f"{device}-head.safetensors", num_epochs=20, held_out_share=0.3)]
        for prepared in jobs:
            if device == "cuda":
                train_on_ray(prepared.job.folder, num_workers=1, device=device)
            else:
                train_here(prepared)
        curve = loss_curve(jobs[0].job.folder, "contrastive")
        assert np.mean(curve[-5:]) < 0.8 * curve[0]
        ends[device] = np.mean(curve[-5:])
        assert read_result(jobs[1].job.folder)["metrics"]["top_1"] > 90
    assert ends["cuda"] == pytest.approx(ends["cpu"], rel=0.25)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_error_of_a_worker_is_one_of_ours_and_progress_is_reported(captions, prepare):
    prepared = prepare(captions, num_epochs=300, batch_size=8)
    path = Path(prepared.job.folder) / "features.npy"
    values = np.load(path)
    values[3] = np.nan
    np.save(path, values)
    with pytest.raises(
        TrainingError, match=r"^the loss 'contrastive' must be a finite number, got nan at step .* row 4"
    ):
        train_on_ray(prepared.job.folder, num_workers=2, device="cpu")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_command_that_was_killed_goes_on_where_it_was(colour_folder, tmp_path):
    command = [sys.executable, "-m", "indexer", "train", colour_folder, "--model", "tiny_test", "--json"]
    command += ["--cache", tmp_path / "cache", "--out", tmp_path / "head.safetensors", "--epochs", "150000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    state = tmp_path / "head.run" / STATE_FILE
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert state.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = torch.load(state, weights_only=True)["step"]
    assert first > 0
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    said = ""
    while "training: " not in said:
        said += process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "going on with 27 items" in said
    assert "the same command goes on from there" in said
    assert torch.load(state, weights_only=True)["step"] >= first


def test_more_workers_than_fit_are_refused_at_once():
    _require_room(Cluster(num_cpus=2, num_gpus=0), 4, on_gpu=False)
    _require_room(Cluster(num_cpus=1, num_gpus=0), 2, on_gpu=False)
    with pytest.raises(WorkerError, match="room for 4 workers on 2 cores, got 5"):
        _require_room(Cluster(num_cpus=2, num_gpus=0), 5, on_gpu=False)
    with pytest.raises(WorkerError, match="2 workers need as many GPUs, the cluster has 0"):
        _require_room(Cluster(num_cpus=2, num_gpus=0), 2, on_gpu=True)
