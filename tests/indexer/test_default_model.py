"""Which model a new index gets where nobody names one. What the hardware is like is injected."""

from __future__ import annotations

import json

import pytest

from indexer import default_model as choice
from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.store.index import IndexStore


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def integers_pay(monkeypatch):
    monkeypatch.setattr(choice, "why_int8_does_not_pay", lambda device: "a GPU" if device == "cuda" else "")
    monkeypatch.setattr(choice, "int8_gain", lambda: 2.34)


@pytest.fixture
def integers_do_not_pay(monkeypatch):
    monkeypatch.setattr(choice, "why_int8_does_not_pay", lambda device: f"no reason at all on {device}")


def _index(videos, path, **options):
    chosen = []
    index_videos(
        [str(videos)],
        path,
        sampling=SamplingConfig(),
        run=RunConfig(),
        in_process=True,
        on_default_model=chosen.append,
        **options,
    )
    return chosen


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_default_is_int8_where_integers_pay(integers_pay, device):
    model, reason = choice.default_model(RunConfig(device=device))
    assert model == "mini-int8"
    assert "2.3 times as fast" in reason


def test_default_is_mini_where_integers_do_not_pay(integers_pay):
    model, reason = choice.default_model(RunConfig(device="cuda"))
    assert model == "mini"
    assert reason.endswith("a GPU")


@pytest.mark.parametrize("address", ["auto", None])
def test_default_is_mini_on_a_cluster_of_which_nothing_is_known(integers_pay, monkeypatch, address):
    if address is None:
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    model, reason = choice.default_model(RunConfig(address=address))
    assert model == "mini"
    assert "cluster" in reason


def test_index_made_through_python_has_the_default_and_keeps_it(integers_pay, small_videos, tmp_path, monkeypatch):
    (chosen,) = _index(small_videos, tmp_path / "index")
    assert chosen.name == IndexStore.open(tmp_path / "index").config.model == "mini-int8"

    monkeypatch.setattr(choice, "why_int8_does_not_pay", None)  # is not even asked
    assert _index(small_videos, tmp_path / "index") == []
    assert IndexStore.open(tmp_path / "index").config.model == "mini-int8"


def test_default_is_not_chosen_where_a_model_is_named(small_videos, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "why_int8_does_not_pay", None)
    assert _index(small_videos, tmp_path / "index", model="tiny_test") == []


def test_command_line_says_in_one_line_what_a_new_index_was_made_with(
    integers_do_not_pay, videobert, small_videos, tmp_path
):
    arguments = ("index", small_videos, "--into", tmp_path / "index", "--json")
    code, out, first = videobert(*arguments)
    assert (code, json.loads(out)["indexed"]) == (0, 3)
    said = "model of the new index: mini, as 8-bit integers do not pay here: no reason at all on auto; --model names"
    assert [said in line for line in first.splitlines()].count(True) == 1
    assert "new index" not in videobert(*arguments)[2]


@pytest.mark.parametrize("arguments", [["{videos}", "--dry-run"], ["{videos}/none"]])
def test_command_line_says_nothing_where_no_index_was_made(integers_pay, videobert, small_videos, tmp_path, arguments):
    given = [each.format(videos=small_videos) for each in arguments]
    _, _, err = videobert("index", *given, "--into", tmp_path / "index")
    assert "new index" not in err
    assert not (tmp_path / "index").exists()
