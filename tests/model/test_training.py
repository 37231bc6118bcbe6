"""The training loop: the same steps after a kill and in several processes, and what is said of what cannot go on."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from model.errors import ModelError, TrainingError
from model.training import Trainer
from model.training_plan import TrainingSettings, describe_run, make_optimizer, rate_at
from model.training_state import STATE_FILE

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("training_toy.py")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_toy", TOY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*args: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(TOY), *map(str, args)], env=environment)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_lowers_the_loss(toy):
    _, losses = toy.train()
    assert len(losses) == 4 * 4  # the three items beyond four batches are left out
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_training_ends_in_the_same_weights_when_killed_and_started_again(toy, tmp_path):
    process = start(tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / STATE_FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.25)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = torch.load(tmp_path / STATE_FILE, weights_only=True)["step"]
    assert 0 < step < 16, "the kill came too late to show anything"
    resumed, losses = toy.train(tmp_path)
    undisturbed, all_losses = toy.train()
    assert losses == all_losses[step:]
    assert equal(resumed.module, undisturbed.module)


@pytest.mark.parametrize("stop_at", [1, 7])
def test_training_ends_in_the_same_weights_when_interrupted_at_any_step(toy, tmp_path, stop_at):
    class StopError(Exception):
        pass

    def stop(report):
        if report.step == stop_at + 1:
            raise StopError

    with pytest.raises(StopError):
        Trainer(toy.ToyTask(), toy.SETTINGS, folder=tmp_path, run="toy", on_step=stop).fit()
    resumed, losses = toy.train(tmp_path)
    undisturbed, all_losses = toy.train()
    assert losses == all_losses[stop_at:]
    assert equal(resumed.module, undisturbed.module)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_training_takes_the_same_steps_in_one_process_and_in_several(toy, tmp_path, size):
    """This process is the first of them."""
    processes = [start(tmp_path / "store", rank, size) for rank in range(1, size)]
    alone, losses = toy.train()
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=size)
    try:
        shared, shared_losses = toy.train()
    finally:
        torch.distributed.destroy_process_group()
    assert [process.wait(timeout=120) for process in processes] == [0] * (size - 1)
    assert shared_losses == pytest.approx(losses, abs=1e-4)
    for one, other in zip(shared.module.parameters(), alone.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_training_leaves_the_callers_random_numbers_alone(toy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    toy.train()
    assert torch.equal(torch.rand(3), expected)


def test_training_keeps_the_best_weights_and_stops_when_patience_runs_out(toy):
    task, seen = toy.ToyTask(), []
    metrics = iter([1.0, 3.0, 2.0, 2.5, 9.0, 9.0])

    def validate():
        seen.append([weight.detach().clone() for weight in task.module.parameters()])
        return {"gain": next(metrics)}

    task.validate = validate
    report = Trainer(task, replace(toy.SETTINGS, num_epochs=6, patience=2)).fit()
    assert (report.stopped_early, report.best_metric, len(seen)) == (True, 3.0, 4)
    for weight, best in zip(task.module.parameters(), seen[1], strict=True):
        assert torch.equal(weight, best)


def test_training_keeps_the_last_weights_where_nothing_could_be_measured(toy):
    task = toy.ToyTask()
    task.validate = dict
    report = Trainer(task, replace(toy.SETTINGS, average_decay=0.0)).fit()
    last = toy.ToyTask()
    last.metric = None
    Trainer(last, replace(toy.SETTINGS, average_decay=0.0)).fit()
    assert report.best_metric is None
    assert equal(task.module, last.module)


def test_training_validates_the_moving_average_of_the_weights(toy):
    task = toy.ToyTask()
    expected = {name: weight.detach().clone() for name, weight in task.module.named_parameters()}
    settings = replace(toy.SETTINGS, num_epochs=1)
    steps = []

    def follow(report):
        decay = min(settings.average_decay, (report.step) / (report.step + 9))
        for name, weight in task.module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * weight.detach()
        steps.append(report.step)

    Trainer(task, settings, on_step=follow).fit()
    assert len(steps) == 4
    for name, weight in task.module.named_parameters():
        torch.testing.assert_close(weight, expected[name])


def test_training_names_objective_step_and_item_when_a_loss_is_no_number(toy):
    task = toy.ToyTask()
    task.inputs[7] = math.nan
    with pytest.raises(
        TrainingError, match=r"the loss 'contrastive' must be a finite number, got nan at step \d+ .*toy 7"
    ):
        Trainer(task, toy.SETTINGS).fit()


def test_training_refuses_a_state_of_another_run(toy, tmp_path):
    Trainer(toy.ToyTask(), toy.SETTINGS, folder=tmp_path, run="lr = 1").fit()
    other = Trainer(toy.ToyTask(), toy.SETTINGS, folder=tmp_path, run="lr = 2")
    with pytest.raises(TrainingError, match=r"other data or settings \('lr = 1', now 'lr = 2'\).*--no-resume"):
        other.fit()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 500])
def test_training_says_so_when_the_state_is_damaged(toy, tmp_path, damage):
    toy.train(tmp_path)
    data = damage((tmp_path / STATE_FILE).read_bytes())
    (tmp_path / STATE_FILE).write_bytes(data or b"\0")
    with pytest.raises(TrainingError, match=r"is damaged .*delete it"):
        toy.train(tmp_path)


def test_training_refuses_more_processes_than_shards(toy):
    from model.data_parallel import Ranks

    with pytest.raises(ModelError, match="at least the number of processes, 5, got 4"):
        Trainer(toy.ToyTask(), toy.SETTINGS, ranks=Ranks(0, 5))


def test_optimizer_decays_matrices_only(toy):
    optimizer = make_optimizer(toy.ToyTask().groups(), TrainingSettings(weight_decay=0.3, learning_rate=0.01))
    found = {(group["weight_decay"], group["lr"], p.ndim) for group in optimizer.param_groups for p in group["params"]}
    assert found == {(0.3, 0.01, 2), (0.0, 0.01, 1), (0.3, 0.02, 2), (0.0, 0.02, 1), (0.0, 0.02, 0)}


def test_rate_rises_to_one_and_falls_to_zero():
    rates = [rate_at(step, 10, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be a number above 0, got nan"),
        ({"warmup_fraction": 1.0}, "warmup_fraction must be at least 0 and below 1"),
    ],
)
def test_settings_refuse_a_value_out_of_range(wrong, text):
    with pytest.raises(ModelError, match=text):
        TrainingSettings(**wrong)


def test_run_is_the_same_however_often_its_state_is_written():
    one, other = TrainingSettings(state_every_s=1), TrainingSettings(state_every_s=9)
    assert describe_run(one, {"data": "x"}) == describe_run(other, {"data": "x"})
    assert describe_run(one, {"data": "x"}) != describe_run(replace(one, seed=1), {"data": "x"})
