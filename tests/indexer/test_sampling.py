"""How frames are chosen: the setting, what it does to an index, what the ledger says of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from indexer import schema
from indexer.config import IndexConfig, SamplingConfig
from indexer.errors import IndexSettingsError, UsageError
from indexer.ingest.encode import VideoEncoder
from indexer.ingest.files import look_at
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.leeway import leeway_of
from indexer.ingest.video_rows import joined_facts
from indexer.store.index import IndexStore
from model.weights import load_model


@pytest.fixture(scope="module")
def model():
    return load_model("tiny_test", device="cpu", num_threads=1)


@pytest.fixture
def encode(model):
    """Encodes one file: (ledger row, moments)."""

    def run(path, **settings):
        with GuardedDecoder() as decoder:
            encoded = VideoEncoder(model, decoder, SamplingConfig(**settings)).encode(look_at(path), "b")
        assert encoded.video["status"] == schema.INDEXED
        return encoded.video, encoded.segments

    return run


def ledger_rows(path):
    return {row["uri"].rsplit("/", 1)[-1]: row for row in IndexStore.open(path).ledger.snapshot().videos.to_pylist()}


def test_sampling_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="one of exact, auto, keyframes, got 'fast'"):
        SamplingConfig(mode="fast")


@pytest.mark.parametrize(("mode", "furthest_s"), [("exact", 0), ("auto", 0.5), (None, 0.5), ("keyframes", 30)])
def test_mode_says_how_far_away_a_key_frame_may_be(mode, furthest_s):
    assert leeway_of(SamplingConfig(mode=mode, frame_rate_hz=2.0)).key_frame_s == furthest_s


def test_no_frame_of_the_default_leaves_its_moment(synthetic, encode):
    path = synthetic.write("a.mp4", range(0, 40_000, 100), options={"g": "23", "bf": "2"})

    _, moments = encode(path, mode="auto", segment_length_s=4.0)

    assert len(moments) == 10
    for moment in moments:
        assert moment["num_frames"] == 4
        assert all(moment["start_s"] <= time_s < moment["end_s"] for time_s in moment["frame_times_s"])
        assert moment["frame_times_s"] == sorted(moment["frame_times_s"])


def test_default_decodes_and_encodes_less_than_exact(synthetic, encode):
    path = synthetic.write("a.mp4", range(0, 40_000, 100), options={"g": "50", "bf": "2"})

    exact, auto = encode(path, mode="exact")[0], encode(path, mode="auto")[0]

    assert auto["num_frames"] == exact["num_frames"] == 40
    assert auto["num_decoded"] < 0.9 * exact["num_decoded"]
    assert auto["num_encoded"] < exact["num_encoded"]


def test_settings_from_before_there_were_modes_mean_exact():
    values = IndexConfig(model="m", model_fingerprint="f", embedding_dim=4, feature_shape=(1, 4)).to_dict()
    del values["sampling"]["mode"]

    assert IndexConfig.from_dict(values).sampling.mode == "exact"


def test_new_index_is_made_with_auto_and_later_runs_follow_it(videos, run_index, tmp_path):
    run_index(videos / "b.mkv")
    run_index(videos / "a.mp4")

    assert json.loads((tmp_path / "index" / "index.json").read_text())["sampling"]["mode"] == "auto"
    with pytest.raises(IndexSettingsError, match="setting for the sampling: 'auto', now 'exact'"):
        run_index(videos, mode="exact")


def test_index_from_before_there_were_modes_takes_new_videos_with_the_very_frames(videos, run_index, tmp_path):
    run_index(videos / "b.mkv", mode="exact")
    file = tmp_path / "index" / "index.json"
    values = json.loads(file.read_text())
    del values["sampling"]["mode"]
    file.write_text(json.dumps(values))

    run_index(videos / "a.mp4")

    assert IndexStore.open(tmp_path / "index").config.sampling.mode == "exact"
    assert sorted(ledger_rows(tmp_path / "index")) == ["a.mp4", "b.mkv"]


def test_ledger_says_what_was_decoded_and_encoded(synthetic, run_index, tmp_path):
    (synthetic.folder / "v").mkdir()
    synthetic.write("v/busy.mp4", range(0, 8000, 40), options={"g": "25", "bf": "2"})
    (synthetic.folder / "v" / "broken.mp4").write_text("no video")

    run_index(synthetic.folder / "v", mode="exact")
    run_index(synthetic.folder / "v", mode="keyframes", into="keys")

    exact, keys = ledger_rows(tmp_path / "index"), ledger_rows(tmp_path / "keys")
    assert (exact["busy.mp4"]["sampling_plan"], exact["busy.mp4"]["num_coded"]) == ("sparse", 200)
    assert 8 < exact["busy.mp4"]["num_decoded"] < 120
    assert exact["busy.mp4"]["num_frames"] == exact["busy.mp4"]["num_encoded"] == 8
    assert keys["busy.mp4"]["sampling_plan"] == "keyframes"
    assert 8 <= keys["busy.mp4"]["num_decoded"] <= 12
    assert exact["broken.mp4"]["sampling_plan"] is exact["broken.mp4"]["num_encoded"] is None


def test_frames_that_look_alike_are_encoded_once(synthetic, encode, model, monkeypatch):
    path = synthetic.write("still.mp4", range(0, 25_000, 100), numbers=[9] * 120 + [77] * 130)
    shown = []
    encode_frames = model.encode_frames
    monkeypatch.setattr(model, "encode_frames", lambda frames: shown.append(len(frames)) or encode_frames(frames))

    video, moments = encode(path, mode="exact")

    assert (video["num_frames"], video["num_encoded"], sum(shown)) == (25, 2, 2)
    features = np.concatenate([np.frombuffer(m["frame_features"], "<f2").reshape(m["num_frames"], -1) for m in moments])
    assert [m["num_frames"] for m in moments] == [10, 10, 5]
    assert len(np.unique(features[:12], axis=0)) == len(np.unique(features[12:], axis=0)) == 1
    assert not np.array_equal(features[11], features[12])


def test_features_are_those_of_every_frame_by_itself_where_none_look_alike(synthetic, encode, model):
    from indexer.ingest.video import SampledFrame, read_video

    path = synthetic.write("busy.mp4", range(0, 12_000, 100))
    stream = read_video(path, frame_rate_hz=1.0, size_px=model.frame_size_px)
    pixels = np.stack([item.pixels for item in stream if isinstance(item, SampledFrame)])

    video, moments = encode(path, mode="exact")

    assert video["num_encoded"] == 12
    found = np.concatenate([np.frombuffer(m["frame_features"], "<f2").reshape(m["num_frames"], -1) for m in moments])
    expected = model.encode_frames(pixels).cpu().numpy().reshape(12, -1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_parts_of_a_video_add_up():
    part = {"num_frames": 3, "num_coded": 100, "num_decoded": 20, "num_encoded": 2, "sampling_plan": "sparse"}

    assert joined_facts([part, part]) == {
        "num_coded": 200,
        "num_decoded": 40,
        "num_encoded": 4,
        "sampling_plan": "sparse",
    }
    assert joined_facts([part, {**part, "num_coded": None}])["num_coded"] is None
    assert joined_facts([part, {**part, "sampling_plan": "linear"}])["sampling_plan"] == "sparse"
    assert joined_facts([part, {**part, "num_frames": 0, "sampling_plan": "linear"}])["sampling_plan"] == "sparse"


def test_command_line_takes_the_sampling_and_info_shows_it(videos, videobert, tmp_path):
    index = tmp_path / "index"

    code, _, err = videobert("index", videos, "--into", index, "--model", "tiny_test", "--sampling", "keyframes")
    assert code == 0, err
    _, out, _ = videobert("info", index, "--json")
    assert json.loads(out)["sampling"] == "keyframes"

    code, out, err = videobert("index", videos, "--into", index, "--model", "tiny_test", "--sampling", "fast")
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].endswith("the sampling must be one of exact, auto, keyframes, got 'fast'")
