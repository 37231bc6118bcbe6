import io
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from indexer.errors import IndexNotFoundError, IndexSettingsError, UsageError, VideoError
from indexer.query.filters import Filters
from indexer.query.video_index import VideoIndex
from indexer.store.index import IndexStore


def first(result):
    return Path(result.results[0].video).name


@pytest.mark.parametrize(("query", "name"), [("red", "red.mp4"), ("blue", "blue.mp4"), ("yellow", "mixed.mp4")])
def test_search_finds_the_video_that_shows_it(colours, query, name):
    assert first(colours.search(query, k=3)) == name


def test_search_finds_the_moment_and_merges_equal_neighbours(colours):
    best = colours.search("green", k=1).results[0]
    assert (Path(best.video).name, best.start_s, best.end_s) == ("mixed.mp4", 10.0, 30.0)
    best = colours.search("yellow", k=1).results[0]
    assert (best.start_s, best.end_s) == (0.0, 10.0)


def test_results_are_ranked_scored_and_labelled(colours):
    results = colours.search("red", k=10).results
    assert [moment.rank for moment in results] == list(range(1, len(results) + 1))
    assert [moment.score for moment in results] == sorted((m.score for m in results), reverse=True)
    assert all(0 <= moment.confidence <= 1 for moment in results)
    assert results[0].labels[0].label == "red"
    assert len(results) == 4


def test_score_is_the_cosine_of_query_and_moment_where_no_word_matches(colours):
    snapshot = colours.snapshot
    best = colours.search("blueish", k=1).results[0]
    vector = snapshot.embeddings()[snapshot.row_of(best.segment_id)]
    query = colours.encode_texts(["blueish"])[0]
    assert best.score == pytest.approx(float(vector @ query), abs=1e-5)


def test_many_queries_equal_single_ones_in_order(colours):
    queries = ["red", "blue", "green", "something else"]
    together = colours.search_many(queries, 3)
    assert [result.query for result in together] == queries
    for result in together:
        alone = colours.search(result.query, 3)
        assert [m.segment_id for m in result.results] == [m.segment_id for m in alone.results]
        assert [m.score for m in result.results] == pytest.approx([m.score for m in alone.results], abs=1e-5)


def test_k_bounds_the_results(colours):
    assert [len(colours.search("red", k).results) for k in (1, 2, 1000)] == [1, 2, 4]
    for bad in (0, 1001):
        with pytest.raises(UsageError):
            colours.search("red", bad)


@pytest.mark.parametrize("query", ["", "   "])
def test_an_empty_query_is_refused(colours, query):
    with pytest.raises(UsageError, match="empty"):
        colours.search(query)


@pytest.mark.parametrize("query", ["rouge et bleu", "赤い車が走っている", "x " * 5_000, "\0\n\t�'\"<script>"])
def test_any_other_text_gets_an_answer(colours, query):
    assert colours.search(query, k=2).results


def test_the_result_is_json(colours):
    values = json.loads(json.dumps(colours.search("rouge", k=1).to_dict()))
    assert set(values) == {"query", "matched", "results"}
    contract = {"rank", "video", "start_s", "end_s", "score", "confidence", "labels", "transcript", "segment_id"}
    assert set(values["results"][0]) == contract
    (moment,) = colours.search('"red"', k=1).to_dict()["results"]
    assert set(moment) == {*contract, "snippet"}
    assert "**red**" in moment["snippet"]


def test_classify_gives_each_moment_its_colour(colours):
    found = {
        (Path(m.video).name, m.start_s): m.labels[0].label for m in colours.classify(["red", "blue", "yellow", "green"])
    }
    assert found == {
        ("blue.mp4", 0.0): "blue",
        ("red.mp4", 0.0): "red",
        ("mixed.mp4", 0.0): "yellow",
        ("mixed.mp4", 10.0): "green",
        ("mixed.mp4", 20.0): "green",
    }
    for moment in colours.classify(["red", " red", "", "blue"]):
        assert sorted(label.label for label in moment.labels) == ["blue", "red"]
        assert sum(label.score for label in moment.labels) + moment.none_of_these == pytest.approx(1, abs=1e-5)


def test_thumbnails_show_the_moment(colours):
    best = colours.search("blue", k=1).results[0]
    pixels = np.asarray(Image.open(io.BytesIO(colours.thumbnail(best.segment_id))).convert("RGB"))
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
    assert blue > 200
    assert max(red, green) < 60
    with pytest.raises(UsageError, match="no moment"):
        colours.thumbnail(1)


def test_clips_start_at_the_moment_and_come_only_from_the_index(colours, tmp_path):
    best = colours.search("green", k=1).results[0]
    with av.open(io.BytesIO(colours.clip(best.video, best.start_s, best.end_s))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.reshape(-1, 3).mean(axis=0).argmax() == 1
    (tmp_path / "secret.mp4").write_bytes(Path(best.video).read_bytes())
    with pytest.raises(UsageError, match="not in the index"):
        colours.clip(str(tmp_path / "secret.mp4"), 0, 1)


def test_reload_sees_what_came_since(colour_index, colour_videos, run_index):
    assert not colour_index.reload()
    (colour_videos / "red.mp4").unlink()
    run_index(colour_videos, prune=True)
    assert first(colour_index.search("red", k=1)) == "red.mp4"
    assert colour_index.reload()
    assert first(colour_index.search("red", k=1)) != "red.mp4"


def test_an_empty_index_answers_with_nothing(copied_colours):
    ledger = IndexStore.open(copied_colours).ledger
    ledger.remove(ledger.snapshot().videos["video_id"].to_pylist())
    empty = VideoIndex.open(copied_colours)
    assert empty.search("red").to_dict() == {"query": "red", "matched": False, "results": []}
    assert empty.classify(["red"]) == []


def test_an_index_of_another_model_is_refused(copied_colours):
    settings = copied_colours / "index.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps(values | {"model_fingerprint": "0" * 64}))
    with pytest.raises(IndexSettingsError, match="fingerprint 000000000000"):
        VideoIndex.open(copied_colours).search("red")


def test_no_index_is_reported(tmp_path):
    with pytest.raises(IndexNotFoundError, match="there is no index"):
        VideoIndex.open(tmp_path / "none")


def test_search_loads_no_ray():
    probe = (
        "import sys; from indexer import VideoIndex; VideoIndex.open; print('ray' in sys.modules, 'av' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.split()[0] == "False"


def test_moments_like_one_of_the_index_come_by_cosine_without_itself(colours):
    snapshot = colours.snapshot
    row = snapshot.row_of(colours.search("red", k=1).results[0].segment_id)
    exact = snapshot.embeddings() @ snapshot.embeddings()[row]
    found = colours.search_like(int(snapshot.rows.segment_ids[row]), k=100)
    rows = [snapshot.row_of(moment.segment_id) for moment in found.results]
    assert row not in rows
    assert [moment.score for moment in found.results] == pytest.approx(exact[rows], abs=1e-5)
    assert found.results[0].score == pytest.approx(np.delete(exact, row).max(), abs=1e-5)
    with pytest.raises(UsageError, match="there is no moment"):
        colours.search_like(1)


def test_an_image_and_a_clip_find_what_looks_like_them(colours, tmp_path):
    Image.new("RGB", (64, 64), (0, 0, 255)).save(tmp_path / "like.png")
    assert first(colours.search_like(tmp_path / "like.png", k=3)) == "blue.mp4"
    red = colours.search("red", k=1).results[0].video
    found = colours.search_like(red, k=3, where=Filters(video="[rm]*"))
    assert {Path(moment.video).name for moment in found.results} == {"red.mp4", "mixed.mp4"}
    assert (first(found), found.results[0].score) == ("red.mp4", pytest.approx(1, abs=1e-4))


def test_an_example_that_is_no_picture_is_one_line(colours, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(VideoError, match="not a video file"):
        colours.search_like(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="cannot read"):
        colours.search_like(tmp_path / "none.png")
