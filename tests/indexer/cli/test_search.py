import json
import os
import re
import subprocess
import sys

import pytest

from indexer.cli.search import _print_result
from indexer.query.notebook import search_html
from indexer.query.results import Moment, SearchResult
from search_ui.wording import confidence_badge


@pytest.fixture
def search(videobert, indexed):
    """`videobert search` on an index of the small videos."""
    return lambda *arguments: videobert("search", indexed, *arguments)


def found(answer):
    code, out, err = answer
    assert (code, err) == (0, "")
    return sorted({moment["video"].rsplit("/", 1)[-1] for moment in json.loads(out)["results"]})


def test_words_filters_and_examples_reach_the_index(search, small_videos, tmp_path):
    folder = os.path.relpath(small_videos, tmp_path)
    (tmp_path / "own.csv").write_text(f"path,takes\n{folder}/a.mp4,2\n{folder}/sub/c.avi,7\n")
    own = ("--metadata", tmp_path / "own.csv")
    for arguments, expected in [
        (['"black and white"'], ["b.mkv"]),
        (["blocks", "--video", "*.m*"], ["a.mp4", "b.mkv"]),
        (["blocks", "--in", "b.mkv"], ["b.mkv"]),
        (["blocks", "--min-duration", "2", "--max-duration", "5"], ["b.mkv"]),
        (["blocks", "--min-height", "9999"], []),
        (["blocks", "--no-speech", "--modified-after", "2020-01-01"], ["a.mp4", "c.avi"]),
        (["blocks", "--where", "takes>1", "--where", "duration_s<5", *own], ["c.avi"]),
        (["--like", small_videos / "b.mkv", "--speech"], ["b.mkv"]),
    ]:
        assert found(search(*arguments, "--json", "-k", 50, "--show-alike")) == expected, arguments


def test_like_a_moment_leaves_it_out(search):
    (moment,) = json.loads(search("blocks", "--in", "b.mkv", "--json")[1])["results"]
    assert found(search("--like", moment["segment_id"], "--json", "--show-alike")) == ["a.mp4", "c.avi"]


def test_near_duplicates_are_one_line_with_their_number(search):
    every = json.loads(search("blocks", "--json", "--show-alike")[1])["results"]
    one = json.loads(search("blocks", "--json")[1])["results"]
    assert len(one) + sum(moment.get("num_alike", 0) for moment in one) == len(every) > len(one)
    named = {alike["segment_id"] for moment in one for alike in moment.get("alike", [])}
    assert named | {moment["segment_id"] for moment in one} == {moment["segment_id"] for moment in every}
    assert "alike)" in search("blocks")[1]
    assert "alike)" not in search("blocks", "--show-alike")[1]


def test_a_video_has_no_more_moments_than_allowed(search):
    moments = json.loads(search("blocks", "--json", "--show-alike", "--per-video", 1)[1])["results"]
    assert len({moment["video"] for moment in moments}) == len(moments)


def test_snippet_is_in_the_table(search):
    assert "**black** and **white**" in search("black white", "--in", "b.mkv")[1]


def test_what_cannot_be_asked_is_one_line(search):
    for arguments, reason in [
        (['"open'], "a quote is not closed"),
        (["cat -dog", "--where", "nope=1"], "there is no column 'nope'"),
        (["dog", "--like", "x.png"], "give either a query"),
        (["--like", "x.png"], "cannot read 'x.png'"),
        (["dog", "--metadata", "x.csv"], "filters nothing without a condition"),
        (["dog", "--per-video", "0"], "per_video must be at least 1, got 0"),
        (["dog", "-k", "1001"], "k must be between 1 and 1000, got 1001"),
        ([], "give either a query"),
    ]:
        code, out, err = search(*arguments)
        assert (code, out) == (2, ""), arguments
        assert reason in err
        assert err.count("\n") == 1


def test_search_loads_neither_video_decoders_nor_data_frames_nor_sql(index):
    program = """
import sys
from indexer.cli.app import main
try:
    main()
except SystemExit as done:
    heavy = {"PIL", "av", "duckdb", "openvino", "pandas", "ray", "transformers", "model.frame_encoder"}
    print(done.code, sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    command = [sys.executable, "-c", program, "search", str(index), "blocks", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["results"]
    assert done.stderr == "0 []\n"


def test_leaving_pandas_out_changes_no_table_and_to_pandas_still_works():
    program = """
import sys
from indexer.cli.pandas_free import leave_pandas_out
leave_pandas_out()
import numpy as np, pyarrow as pa
table = pa.table({"number": np.arange(3), "name": ["a", None, "c"]})
print(table.to_pylist(), "pandas" in sys.modules)
frame = table.to_pandas()
print(list(frame["number"]), pa.array(frame["number"]).to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    rows = [{"number": number, "name": name} for number, name in enumerate(["a", None, "c"])]
    assert done.stdout.splitlines() == [f"{rows} False", "[0, 1, 2] [0, 1, 2]"]


@pytest.mark.parametrize("confidence", [0.975, 0.8499, 0.999])
def test_the_table_says_how_sure_as_the_page_does(confidence, capsys):
    moment = Moment(
        rank=1,
        video="a.mp4",
        start_s=0.0,
        end_s=1.0,
        score=0.3,
        confidence=confidence,
        labels=[],
        transcript=None,
        segment_id=1,
    )
    result = SearchResult(query="cats", matched=True, results=[moment])
    _print_result(result, 1, json=False)
    (shown,) = re.findall(r">?\d+%", capsys.readouterr().out)
    assert f" {shown}]" in confidence_badge(confidence).replace("\\", "")
    assert f"{shown} sure" in search_html(result).replace("&gt;", ">")
