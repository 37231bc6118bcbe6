"""Indexes made with a CLIP model from a folder: indexing, searching, and a model that is changed or moved later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer import VideoIndex
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import IndexSettingsError
from indexer.pipeline import index_videos
from model import load_model

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def folder(clip_folder, tmp_path):
    return Path(shutil.copytree(clip_folder("clip"), tmp_path / "my-clip"))


@pytest.fixture
def run(synthetic, tmp_path):
    for name, numbers in (("one.mp4", [1] * 20), ("two.mp4", [60000] * 20)):
        synthetic.write(name, range(0, 2000, 100), numbers=numbers)

    def index(model: str):
        return index_videos(
            [str(tmp_path / "*.mp4")],
            tmp_path / "index",
            model=model,
            sampling=SamplingConfig(),
            run=RunConfig(),
            in_process=True,
        )

    return index


def test_videos_are_found_by_the_vectors_of_the_model(run, folder, synthetic, tmp_path):
    assert run(f"clip:{folder}").indexed == 2
    index = VideoIndex.open(tmp_path / "index")
    found = {Path(moment.video).name: moment for moment in index.search("a red car", k=2).results}
    model = load_model(f"clip:{folder}")
    query = model.encode_text(["a red car"])
    scores = {}
    for name, number in (("one.mp4", 1), ("two.mp4", 60000)):
        frame = synthetic.picture(number, 32, 32)[None]
        scores[name] = float(
            model.encode_video(model.encode_frames(frame)[None], np.ones((1, 1), bool), [[0.0]]) @ query.T
        )
        assert found[name].score == pytest.approx(scores[name], abs=0.03)  # its frames went through a video codec
    best = max(scores, key=scores.__getitem__)
    assert found[best].rank == 1
    assert abs(scores["one.mp4"] - scores["two.mp4"]) > 0.1


def test_any_labels_are_scored(run, folder, tmp_path):
    run(f"clip:{folder}")
    for moment in VideoIndex.open(tmp_path / "index").classify(["car", "tree"]):
        assert sum(label.score for label in moment.labels) <= 1.0001
        assert {label.label for label in moment.labels} == {"car", "tree"}


def test_a_run_goes_on_and_remembers_the_model_by_an_absolute_path(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("clip:my-clip")
    assert json.loads((tmp_path / "index" / "index.json").read_text())["model"] == f"clip:{folder}"
    assert run("clip:./my-clip").unchanged == 2


def replace_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"] += 1
    save_file(tensors, folder / "model.safetensors")


def test_an_index_refuses_a_folder_whose_files_were_replaced(run, folder, tmp_path):
    run(f"clip:{folder}")
    replace_weights(folder)
    with pytest.raises(IndexSettingsError, match=r"made with model 'clip:.* of fingerprint"):
        VideoIndex.open(tmp_path / "index").search("car")
    with pytest.raises(IndexSettingsError, match="weights of the model"):
        run(f"clip:{folder}")


def test_an_index_refuses_another_model(run, folder, tmp_path):
    run(f"clip:{folder}")
    with pytest.raises(IndexSettingsError, match=r"another setting for the model: 'clip:.*', now 'tiny_test'"):
        run("tiny_test")


def test_a_model_that_has_moved_is_asked_for_and_found_again(run, folder, tmp_path, monkeypatch):
    run(f"clip:{folder}")
    (tmp_path / "models").mkdir()
    folder.rename(tmp_path / "models" / "my-clip")
    with pytest.raises(IndexSettingsError, match="If the folder has moved, set VIDEOBERT_WEIGHTS_DIR"):
        VideoIndex.open(tmp_path / "index").search("car")
    assert run(f"clip:{tmp_path}/models/my-clip").unchanged == 2  # named anew, it is the same model
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path / "models"))
    assert len(VideoIndex.open(tmp_path / "index").search("car").results) == 2


def test_a_moved_model_can_encode_new_videos_from_its_new_place(run, folder, synthetic, tmp_path):
    run(f"clip:{folder}")
    folder.rename(tmp_path / "moved")
    synthetic.write("three.mp4", range(0, 2000, 100))
    assert run(f"clip:{tmp_path}/moved").indexed == 1
