"""The page, run without a browser on a real index."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from indexer import VideoIndex
from indexer.errors import IndexSettingsError
from indexer.query.calibration import Calibration
from indexer.query.hybrid import PlainWords


def names(page):
    """File names on the cards, in their order."""
    return [text.value for text in page.text if not text.value.startswith("“")]


def all_markdown(page):
    elements = [*page.markdown, *page.caption, *page.warning, *page.error, *page.info]
    return "\n".join(element.value for element in elements)


def ask(page, query):
    return page.text_input(key="query").set_value(query).run()


def classify(page, labels):
    page.text_area[0].set_value(labels)
    return next(button for button in page.button if button.label == "Classify").click().run()


@pytest.fixture
def certain(monkeypatch):
    """`certain(False)`: no best hit of any query is a match."""
    return lambda matched: monkeypatch.setattr(Calibration, "is_match", lambda self, confidence: matched)


def test_first_view_tells_the_size_of_the_collection_and_gives_a_hint(index, open_page):
    page = open_page(index)
    assert page.title[0].value == "VideoBERT Search"
    assert page.caption[0].value == "3 videos · 3 moments · 12 s of video"
    assert "Say what the moment shows" in all_markdown(page)
    assert not page.error
    assert not names(page)


@pytest.mark.parametrize("query", ["red", "green"])
def test_cards_stand_in_the_order_of_the_answer(index, open_page, query, videos):
    page = ask(open_page(index), query)
    expected = [Path(moment.video) for moment in VideoIndex.open(index).search(query).results]
    assert expected[0] == videos / f"{query}.mp4"
    shown = names(page)
    assert shown[0] == f"{query}.mp4"
    assert [name.endswith("4pm..mp4") for name in shown] == [path.name.endswith("4pm..mp4") for path in expected]
    assert len(page.get("image")) == 3


def test_card_says_span_score_and_labels(index, open_page):
    page = ask(open_page(index), "green")
    best = VideoIndex.open(index).search("green").results[0]
    assert f"0:00–0:04 · score {best.score:.2f}" in [caption.value for caption in page.caption]
    chips = next(element.value for element in page.markdown if "gray-badge[green " in element.value)
    assert chips.startswith(f":gray-badge[green {int(best.labels[0].score * 100)}\\%]")


def test_card_quotes_what_is_said_as_plain_text(tmp_path, open_page, own_videos, index_folder):
    (own_videos / "green.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nin *May* :red[all] is $green$\n")
    index_folder(own_videos, tmp_path / "index")
    page = ask(open_page(tmp_path / "index"), "meadow")
    assert "“in *May* :red[all] is $green$”" in [text.value for text in page.text]
    page = ask(open_page(tmp_path / "index"), '"green"')
    assert r"“in \*May\* \:red\[all\] is \$**green**\$”" in [element.value for element in page.markdown]


def test_filters_and_syntax_that_mean_nothing_are_said(index, open_page):
    page = ask(open_page(index), '"open')
    assert "a quote is not closed" in page.error[0].value
    page = ask(open_page(index), "red")
    assert len(page.get("image")) == 3
    next(box for box in page.text_input if box.label.startswith("Conditions")).set_value("nope=1").run()
    assert "there is no column" in page.error[0].value
    next(box for box in page.text_input if box.label.startswith("Conditions")).set_value("").run()
    next(box for box in page.text_input if box.label == "Language").set_value("en").run()
    assert "no video of the index is in the language 'en'" in page.error[0].value.replace("\\", "")
    next(box for box in page.text_input if box.label == "Language").set_value("").run()
    next(box for box in page.text_input if box.label == "Videos").set_value("red.*").run()
    assert not page.error
    assert len(page.get("image")) == 1


def test_no_confident_match_is_said_and_the_nearest_are_shown(index, open_page, certain):
    certain(False)
    page = ask(open_page(index), "zebra")
    assert page.warning[0].value == "No confident match. Nearest moments:"
    assert len(names(page)) == 3


def test_what_hides_the_moments_is_said(index, open_page, certain):
    certain(False)
    page = ask(open_page(index), "zebra")
    page.toggle[0].set_value(True).run()
    assert "Switch “Only confident matches” off" in page.warning[0].value
    page.toggle[0].set_value(False).run()
    next(box for box in page.text_input if box.label == "Videos").set_value("nothing-is-called-so*").run()
    assert page.warning[0].value.startswith("Nothing is left: no moment passes the filters")


def test_a_match_is_not_called_none(index, open_page, certain):
    certain(True)
    page = ask(open_page(index), "blue")
    assert not page.warning
    assert "best first" in all_markdown(page)


def test_only_confident_leaves_out_what_is_not(index, open_page, monkeypatch):
    sure = lambda self, cosines, moments, query: np.where(cosines > 0.15, 0.99, 0.1)  # noqa: E731
    monkeypatch.setattr(Calibration, "confidences", sure)
    monkeypatch.setattr(PlainWords, "said", lambda self, keywords, rows: np.zeros(len(rows)))  # a name holds ":red"
    page = ask(open_page(index), "red")
    assert len(names(page)) == 3
    page.toggle[0].set_value(True).run()
    assert names(page) == ["red.mp4"]
    assert "Strong match 99" in all_markdown(page)


def test_query_in_the_address_is_asked_at_once(index, open_page):
    page = open_page(index, q="red")
    assert page.text_input(key="query").value == "red"
    assert names(page)[0] == "red.mp4"


def test_query_goes_into_the_address_and_out_again(index, open_page):
    page = ask(open_page(index), " red ")
    assert page.query_params["q"] in ("red", ["red"])
    assert "q" not in ask(page, "").query_params


def test_query_that_is_too_long_is_one_line_of_error(index, open_page):
    page = ask(open_page(index), "x" * 20_001)
    assert "at most 20000 characters" in page.error[0].value.replace("\\", "")


def test_play_shows_a_clip_and_close_takes_it_away(index, open_page):
    page = ask(open_page(index), "red")
    assert not page.get("video")
    page.button(key="play-1").click().run()
    (video,) = page.get("video")
    assert video.proto.autoplay
    assert len(page.get("image")) == 2
    page.button(key="close-1").click().run()
    assert not page.get("video")


def test_clip_is_a_video_of_the_moment(index, videos):
    from search_ui.collection import Collection, clip

    data = clip(Collection(str(index)), str(videos / "red.mp4"), 1.0, 3.0)
    with av.open(io.BytesIO(data)) as container:
        pixel = next(container.decode(video=0)).to_ndarray(format="rgb24")[32, 32]
        assert container.duration / av.time_base == pytest.approx(2.0, abs=0.05)
    assert (pixel[0] > 200, pixel[1] < 50, pixel[2] < 50) == (True, True, True)


def test_play_of_a_video_that_has_gone_is_one_line_of_error(own_index, open_page, own_videos):
    page = ask(open_page(own_index), "red")
    (own_videos / "red.mp4").unlink()
    page.button(key="play-1").click().run()
    assert not page.exception
    assert "does not exist" in page.error[0].value


def test_new_question_closes_the_player(index, open_page):
    page = ask(open_page(index), "red")
    page.button(key="play-1").click().run()
    assert not ask(page, "green").get("video")


def test_hostile_file_name_is_plain_text(index, open_page, hostile_name):
    page = ask(open_page(index), "blue")
    assert names(page)[0] == hostile_name.replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert "onerror" not in all_markdown(page)
    assert not any(element.proto.allow_html for element in page.markdown)


def test_hostile_label_is_escaped(index, open_page, monkeypatch):
    from indexer.query import results

    monkeypatch.setattr("indexer.query.search.Label", lambda label, score: results.Label(label="](x) <b>", score=1.0))
    page = ask(open_page(index), "blue")
    assert "\\]\\(x\\) \\<b\\>" in all_markdown(page)


def test_classify_shows_every_moment_with_its_best_label_and_scores(index, open_page):
    page = classify(open_page(index), "red, green,\nblue, red")
    summary, table = (frame.value for frame in page.dataframe)
    assert dict(zip(summary["label"], summary["moments"], strict=True)) == {
        "red": 1, "green": 1, "blue": 1, "none of these": 0
    }  # fmt: skip
    best = dict(zip(table["video"], table["best"], strict=True))
    assert (best["red.mp4"], best["green.mp4"]) == ("red", "green")
    assert list(table["moment"]) == ["0:00–0:04"] * 3
    scores = table[[name for name in table.columns if name.startswith("score_")]]
    assert scores.shape == (3, 3)
    assert (scores.sum(axis=1) + table["none"]).tolist() == pytest.approx([100, 100, 100], abs=0.01)


def test_classify_says_where_none_of_the_labels_fits(index, open_page, monkeypatch):
    from indexer.query.labels import CALIBRATIONS, LabelCalibration

    nothing_fits = LabelCalibration(cosine=1.0, seen=0.0, elsewhere=0.0, none=20.0)
    monkeypatch.setitem(CALIBRATIONS, "tiny_test", nothing_fits)
    summary, table = (frame.value for frame in classify(open_page(index), "red, green").dataframe)
    assert list(summary["label"]) == ["red", "green", "none of these"]
    assert list(summary["moments"]) == [0, 0, 3]
    assert set(table["best"]) == {"none of these"}
    assert table["none"].min() > 99


def test_classify_accepts_labels_called_like_columns(index, open_page):
    table = classify(open_page(index), "video, moment, best").dataframe[1].value
    assert list(table.columns) == ["video", "moment", "best", "none", "score_0", "score_1", "score_2"]


def test_classify_without_labels_is_one_line_of_error(index, open_page):
    page = classify(open_page(index), " , ,")
    assert "no labels given" in page.error[0].value
    assert not page.dataframe


def test_csv_holds_every_moment_and_label(index, videos):
    from search_ui.classify_tab import csv_of

    moments = VideoIndex.open(index).classify(["red", "green"])
    table = pd.read_csv(io.BytesIO(csv_of(moments, ["red", "green"])))
    columns = ["video", "start_s", "end_s", "best_label", "none_of_these", "score: red", "score: green"]
    assert list(table.columns) == columns
    assert set(table["video"]) == {str(path) for path in videos.glob("*.mp4")}
    assert table.set_index("video")["best_label"][str(videos / "red.mp4")] == "red"


def test_empty_index_explains_how_to_fill_it(empty_index, open_page):
    page = open_page(empty_index)
    assert "empty" in page.info[0].value
    assert f"--into {empty_index}" in page.code[0].value
    assert not page.text_input


def test_new_videos_appear_without_a_restart(own_index, open_page, own_videos, write_colour, index_folder):
    page = ask(open_page(own_index), "yellow")
    assert "yellow.mp4" not in names(page)
    write_colour(own_videos / "yellow.mp4", "yellow")
    index_folder(own_videos, own_index)
    page.run()
    assert page.caption[0].value.startswith("4 videos")
    assert names(page)[0] == "yellow.mp4"


def test_wrong_index_path_is_one_line_of_error(tmp_path, open_page):
    page = open_page(tmp_path / "no_*such*_index")
    (error,) = page.error
    assert "there is no index at" in error.value
    assert "\\*such\\*" in error.value
    assert not page.tabs


def test_no_index_given_is_one_line_of_error(open_page):
    assert "needs the folder of one index" in open_page().error[0].value


def test_error_of_the_model_is_one_line(index, open_page, monkeypatch):
    def search(self, query, k=10, **options):
        raise IndexSettingsError("the index was made with\nanother model")

    monkeypatch.setattr(VideoIndex, "search", search)
    assert ask(open_page(index), "red").error[0].value == "the index was made with another model"


def test_the_page_loads_nothing_from_other_machines():
    """Icons that Streamlit would fetch (an emoji or `:material/…:` as page icon), fonts, scripts."""
    folder = Path(sys.modules["search_ui.wording"].__file__).parent
    for path in (path for path in folder.rglob("*") if path.suffix in (".py", ".css", ".svg", ".toml")):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
    assert "page_icon=str(" in (folder / "app.py").read_text(encoding="utf-8")
