"""The command line as the contract describes it: output on stdout, one line of error on stderr, exit codes."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest


def json_lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_index_reports_as_text_and_json(videobert, videos, tmp_path):
    args = ("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")
    code, out, _ = videobert(*args, "--json")
    assert code == 0
    summary = json_lines(out)[-1]
    assert set(summary) == {"indexed", "unchanged", "failed", "removed", "segments", "video_s", "wall_s"}
    assert (summary["indexed"], summary["segments"]) == (3, 4)
    code, out, _ = videobert(*args)
    assert code == 0
    assert out.startswith("nothing changed: 3 videos are in the index already")


def test_index_exits_with_3_when_videos_failed(videobert, videos, tmp_path):
    (videos / "bad.mp4").write_text("no video")
    args = ("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")
    code, out, err = videobert(*args)
    assert code == 3
    assert "3 indexed, 0 unchanged, 1 failed" in out
    assert "videobert failures" in err
    assert videobert(*args)[0] == 3, "it is still failed"


def test_dry_run_does_nothing(videobert, videos, tmp_path):
    code, out, _ = videobert(
        "index", videos, "--into", tmp_path / "index", "--model", "tiny_test", "--dry-run", "--json"
    )
    assert (code, json_lines(out)[0]["indexed"]) == (0, 3)
    assert not (tmp_path / "index").exists()


def test_search_prints_a_table_or_json(videobert, indexed):
    code, out, _ = videobert("search", indexed, "black blocks", "-k", 2)
    assert code == 0
    assert "videos/" in out
    code, out, _ = videobert("search", indexed, "black blocks", "-k", 2, "--json")
    (result,) = json_lines(out)
    assert result["query"] == "black blocks"
    assert [moment["rank"] for moment in result["results"]] == [1, 2]


def test_search_answers_a_file_of_queries_in_order(videobert, indexed, tmp_path):
    queries = [f"query {i}" for i in range(70)]
    (tmp_path / "queries.txt").write_text("\n".join(queries) + "\n\n")
    code, out, _ = videobert("search", indexed, "--queries", tmp_path / "queries.txt", "--json", "-k", 1)
    assert code == 0
    assert [line["query"] for line in json_lines(out)] == queries


def test_classify_gives_a_line_a_moment(videobert, indexed, small_videos):
    code, out, _ = videobert("classify", indexed, "--labels", "red, blue,,red", "--json")
    assert code == 0
    lines = json_lines(out)
    assert len(lines) == 4
    assert {"video", "start_s", "end_s", "labels", "none_of_these", "answer"} <= set(lines[0])
    assert sorted(label["label"] for label in lines[0]["labels"]) == ["blue", "red"]
    code, out, _ = videobert(
        "classify", small_videos / "a.mp4", "--labels", "red,blue", "--model", "tiny_test", "--json"
    )
    assert code == 0
    assert [line["labels"] for line in json_lines(out)] == [
        line["labels"] for line in lines if "a.mp4" in line["video"]
    ]


def test_export_is_plain_parquet(videobert, indexed, tmp_path):
    code, out, _ = videobert("export", indexed, tmp_path / "out.parquet")
    assert code == 0
    assert out == f"4 moments written to {tmp_path / 'out.parquet'}\n"
    table = pq.read_table(tmp_path / "out.parquet")
    wanted = {"video", "start_s", "end_s", "segment_id", "labels", "transcript", "embedding"}
    wanted |= {"duration_s", "width", "height", "fps"}
    assert wanted <= set(table.column_names)
    import duckdb

    rows = duckdb.sql(f"select count(*), max(end_s), min(width) from '{tmp_path / 'out.parquet'}'").fetchall()
    assert rows[0][0] == 4
    assert rows[0][1] == pytest.approx(12, abs=0.1)
    assert len(table.to_pandas()) == 4


def test_info_failures_and_verify(videobert, index, videos):
    facts = json_lines(videobert("info", index, "--json")[1])[0]
    assert (facts["videos"], facts["segments"], facts["failed"], facts["model"]) == (3, 4, 0, "tiny_test")
    assert "duration" in videobert("info", index)[1]
    assert videobert("failures", index)[:2] == (0, "no failures\n")
    assert videobert("verify", index)[0] == 0
    (videos / "bad.mp4").touch()
    videobert("index", videos, "--into", index, "--model", "tiny_test")
    (row,) = json_lines(videobert("failures", index, "--json")[1])
    assert (row["stage"], row["kind"], row["attempts"]) == ("read", "EmptyFile", 1)
    table = videobert("failures", index)[1]
    assert all(word in table for word in ("bad.mp4", "read", "EmptyFile", "the file is empty"))


def test_verify_exits_with_1_when_something_is_wrong(videobert, copied_index):
    next((copied_index / "segments").glob("part-*.parquet")).unlink()
    code, out, err = videobert("verify", copied_index, "--json")
    assert code == 1
    assert json_lines(out)[0]["sound"] is False
    assert "missing" in err


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["frobnicate"], 2, "No such command"),
        (["index", "{tmp}/nowhere", "--into", "{index}"], 2, "does not exist"),
        (["index", "{tmp}/empty", "--into", "{tmp}/new"], 2, "empty"),
        (["index", "{tmp}/novideo", "--into", "{tmp}/new"], 2, "video extension"),
        (["index", "{videos}", "--into", "{tmp}/new", "--model", "gpt"], 2, "tiny_test"),
        (["index", "{videos}", "--into", "{tmp}/new", "--fps", "0"], 2, "frame rate"),
        (["index", "{videos}", "--into", "{tmp}/new", "--workers", "0"], 2, "workers"),
        (["index", "{videos}", "--into", "{index}", "--model", "tiny_test", "--fps", "3"], 1, "frame rate"),
        (["index", "{videos}", "--into", "{videos}/a.mp4", "--model", "tiny_test"], 1, "is a file"),
        (["index", "{videos}", "--into", "/proc/version/index", "--model", "tiny_test"], 1, "/proc/version/index"),
        (["index", "{videos}", "--into", "{tmp}/novideo", "--model", "tiny_test"], 1, "holds other files"),
        (["search", "{tmp}/none", "x"], 1, "there is no index"),
        (["search", "{index}", "x", "-k", "0"], 2, "between 1 and 1000"),
        (["search", "{index}", "x", "-k", "many"], 2, "-k"),
        (["search", "{index}", " "], 2, "empty"),
        (["search", "{index}"], 2, "--queries"),
        (["search", "{index}", "--queries", "{tmp}/nowhere.txt", "--json"], 2, "cannot be read"),
        (["search", "{index}", "--queries", "{tmp}/nowhere.txt"], 2, "--json"),
        (["classify", "{index}", "--labels", " , "], 2, "no labels"),
        (["classify", "{tmp}/novideo/notes.txt", "--labels", "a"], 1, "not a video"),
        (["info", "{tmp}/none"], 1, "there is no index"),
        (["export", "{index}", "{tmp}"], 2, "is a folder"),
        (["export", "{index}", "{tmp}/no/such/folder.parquet"], 1, "cannot be written"),
        (["ui", "{tmp}/none"], 1, "there is no index"),
    ],
)
def test_bad_input_is_one_clear_line(videobert, indexed, small_videos, tmp_path, args, code, text):
    (tmp_path / "empty").mkdir()
    (tmp_path / "novideo").mkdir()
    (tmp_path / "novideo" / "notes.txt").write_text("notes")
    names = {"tmp": tmp_path, "index": indexed, "videos": small_videos}
    got, out, err = videobert(*(arg.format(**names) for arg in args))
    assert got == code
    assert text in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "new").exists()


def test_a_hostile_file_name_cannot_drive_the_terminal(videobert, videos, tmp_path, synthetic):
    synthetic.write("videos/\x1b[31mred\x07.mp4", range(0, 500, 100))
    (videos / "\x1b]0;title\x07.mp4").write_text("no video")
    videobert("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")
    outputs = [videobert("search", tmp_path / "index", "red"), videobert("failures", tmp_path / "index")]
    for code, out, err in outputs:
        assert code == 0
        assert "\x1b" not in out + err
        assert "\x07" not in out + err


def test_help_is_quick_and_loads_nothing_heavy():
    probe = (
        "import sys; sys.argv = ['videobert', '--help']\n"
        "from indexer.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(sorted({'torch', 'ray', 'faiss', 'pyarrow', 'numpy', 'av'} & set(sys.modules)))"
    )
    before = os.times()
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    after = os.times()
    assert out.splitlines()[-1] == "[]"
    spent_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent_s < 2  # of a processor, whatever else the machine does


@pytest.mark.parametrize(
    "verb", ["index", "search", "classify", "evaluate", "info", "failures", "verify", "export", "serve", "ui"]
)
def test_every_verb_has_help_with_an_example(videobert, verb):
    code, out, _ = videobert(verb, "--help")
    assert code == 0
    assert f"Example: videobert {verb}" in " ".join(out.split())


def test_evaluate_prints_a_table_or_json_and_writes_files(videobert, indexed, tmp_path):
    rows = "a.mp4\tblocks\t0\t10\nb.mkv\tnoise\t\t\nx\ty\t\t\n"
    (tmp_path / "data.tsv").write_text(f"video\tcaption\tstart_s\tend_s\n{rows}")
    code, out, err = videobert("evaluate", indexed, tmp_path / "data.tsv", "--out", tmp_path / "out")
    assert code == 0
    assert "text to video, 2 × 3" in out
    assert "R@10, IoU 0.7" in out
    assert "1 of 3 rows: video not in the index; first row 3 ('x')" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "report.md", "queries.parquet"}
    code, out, _ = videobert("evaluate", indexed, tmp_path / "data.tsv", "--json")
    (result,) = json_lines(out)
    assert result == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["tasks"]["text_to_video"]["metrics"]["R@10"]["value"] == 1.0
    assert result["skipped"] == [{"reason": "video not in the index", "count": 1, "first": "row 3 ('x')"}]


def test_evaluate_without_a_usable_row_is_one_line_of_error(videobert, indexed, tmp_path):
    (tmp_path / "data.csv").write_text("video,caption\nx.mp4,y\n")
    code, _, err = videobert("evaluate", indexed, tmp_path / "data.csv")
    assert code == 2
    assert err.count("\n") == 1
    assert "1 x video not in the index" in err


@pytest.mark.parametrize(
    ("model", "device", "said"),
    [("mini-int8", "cpu", "no reason at all"), ("mini-int8", "cuda", "no reason at all"), ("tiny_test", "cpu", "")],
)
def test_index_says_in_one_line_where_8_bit_integers_do_not_pay(videobert, tmp_path, monkeypatch, model, device, said):
    monkeypatch.setattr("model.int8_hardware.why_int8_does_not_pay", lambda device: f"no reason at all on {device}")
    (tmp_path / "videos").mkdir()
    _, _, err = videobert(
        "index", tmp_path / "videos", "--into", tmp_path / "index", "--model", model, "--device", device
    )

    notes = [line for line in err.splitlines() if line.startswith("note: 8-bit integers do not pay here")]
    assert len(notes) == bool(said)
    assert all(f"{said} on {device}; mini instead of mini-int8" in note for note in notes)
