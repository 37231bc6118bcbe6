"""`remove`, `retry` and `compact` as the contract describes them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from indexer.store.index import IndexStore


def json_line(out):
    (line,) = out.splitlines()
    return json.loads(line)


def ledger(path: Path) -> dict[str, dict]:
    return {Path(row["uri"]).name: row for row in IndexStore.open(path).ledger.snapshot().videos.to_pylist()}


def test_remove_takes_paths_and_uris(videobert, copied_index, small_videos, monkeypatch):
    monkeypatch.chdir(small_videos)
    code, out, _ = videobert(
        "remove", copied_index, "a.mp4", (small_videos / "sub" / "c.avi").as_uri(), small_videos / "a.mp4", "--json"
    )
    assert (code, json_line(out)) == (0, {"removed": 2})
    assert list(ledger(copied_index)) == ["b.mkv"]
    assert IndexStore.open(copied_index).snapshot().num_segments == 1


def test_remove_knows_videos_whose_files_are_gone(videobert, index, videos):
    (videos / "a.mp4").unlink()
    assert videobert("remove", index, videos / "a.mp4")[:2] == (0, "1 removed\n")
    assert sorted(ledger(index)) == ["b.mkv", "c.avi"]


@pytest.mark.parametrize("unknown", ["nowhere.mp4", "s3://bucket/nowhere.mp4"])
def test_remove_removes_nothing_when_one_is_unknown(videobert, copied_index, small_videos, unknown):
    code, out, err = videobert("remove", copied_index, small_videos / "a.mp4", unknown)
    assert (code, out) == (2, "")
    assert unknown in err
    assert len(err.strip().splitlines()) == 1
    assert len(ledger(copied_index)) == 3


def index_two_bad(videobert, videos, tmp_path) -> Path:
    (videos / "bad.mp4").write_text("no video")
    (tmp_path / "list.txt").write_text("videos/a.mp4\nvideos/gone.mp4\n")
    args = [videos, tmp_path / "list.txt", "--into", tmp_path / "index", "--model", "tiny_test"]
    assert videobert("index", *args)[0] == 3
    return tmp_path / "index"


def test_retry_counts_attempts_of_what_fails_again(videobert, videos, tmp_path):
    index = index_two_bad(videobert, videos, tmp_path)
    code, out, err = videobert("retry", index, "--json")
    assert code == 3
    assert "videobert failures" in err
    summary = json_line(out)
    assert (summary["indexed"], summary["unchanged"], summary["failed"], summary["removed"]) == (0, 0, 2, 0)
    rows = ledger(index)
    assert (rows["bad.mp4"]["attempts"], rows["bad.mp4"]["error_kind"]) == (2, "NotAVideo")
    assert (rows["gone.mp4"]["attempts"], rows["gone.mp4"]["error_kind"]) == (2, "NotFound")


def test_retry_indexes_what_has_been_repaired(videobert, videos, tmp_path, synthetic):
    index = index_two_bad(videobert, videos, tmp_path)
    synthetic.write("videos/bad.mp4", range(0, 1_000, 100))
    synthetic.write("videos/gone.mp4", range(0, 1_000, 100))
    code, out, _ = videobert("retry", index, "--json")
    assert (code, json_line(out)["indexed"], json_line(out)["segments"]) == (0, 2, 2)
    assert {row["status"] for row in ledger(index).values()} == {"indexed"}
    assert videobert("retry", index)[0] == 0
    assert videobert("verify", index)[0] == 0


def test_retry_leaves_other_stages_alone(videobert, videos, tmp_path):
    index = index_two_bad(videobert, videos, tmp_path)
    assert videobert("retry", index, "--stage", "open")[0] == 3
    rows = ledger(index)
    assert (rows["bad.mp4"]["attempts"], rows["gone.mp4"]["attempts"]) == (2, 1)


def test_retry_marks_a_failed_file_that_has_gone_since(videobert, videos, tmp_path):
    index = index_two_bad(videobert, videos, tmp_path)
    (videos / "bad.mp4").unlink()
    assert videobert("retry", index)[0] == 3
    assert ledger(index)["bad.mp4"]["error_kind"] == "NotFound"


def test_video_of_the_index_that_cannot_be_read_now_is_told_and_stays(videobert, videos, tmp_path):
    (videos / "list.txt").write_text("a.mp4\nb.mkv\n")
    arguments = ("index", videos / "list.txt", "--into", tmp_path / "i", "--model", "tiny_test")
    videobert(*arguments)
    (videos / "a.mp4").unlink()
    code, _, err = videobert(*arguments)
    assert code == 3
    assert "1 videos that the index holds cannot be read now, and stay in it as they were" in err
    assert "videos failed" not in err, "there is nothing of it among the failures"
    assert videobert("failures", tmp_path / "i")[1] == "no failures\n"
    code, _, err = videobert(*arguments, "--prune")
    assert code == 3
    assert "stay in it" not in err
    assert json.loads(videobert("info", tmp_path / "i", "--json")[1])["videos"] == 1


def test_retry_refuses_a_stage_that_there_is_not(videobert, indexed):
    code, _, err = videobert("retry", indexed, "--stage", "dancing")
    assert code == 2
    assert "read, open, decode, encode, write" in err


def test_compact_reports_and_keeps_the_index_sound(videobert, index, synthetic, videos):
    synthetic.write("videos/d.mp4", range(0, 1_000, 100))
    assert videobert("index", videos, "--into", index, "--model", "tiny_test")[0] == 0
    videobert("remove", index, videos / "a.mp4")
    code, out, _ = videobert("compact", index, "--older-than-hours", 0, "--json")
    report = json_line(out)
    assert code == 0
    assert set(report) == {"files_before", "files_after", "rows_dropped", "files_deleted", "bytes_freed"}
    assert (report["files_after"], report["rows_dropped"]) == (1, 2)
    assert videobert("compact", index)[1].startswith("1 segment files are 1 now, 0 rows dropped; 0 files deleted")
    assert videobert("verify", index)[0] == 0


def test_compact_refuses_while_another_one_runs(videobert, copied_index):
    (copied_index / ".compact.lock").write_text('{"host": "elsewhere", "pid": 1}')
    code, out, err = videobert("compact", copied_index)
    assert (code, out) == (1, "")
    assert "is being compacted or refreshed by another process" in err
    assert len(err.strip().splitlines()) == 1


def test_verify_repairs_vectors_on_request(videobert, copied_index):
    (path,) = (copied_index / "vectors").glob("*.faiss")
    path.unlink()
    assert videobert("verify", copied_index)[0] == 1
    code, out, err = videobert("verify", copied_index, "--repair", "--json")
    assert (code, json_line(out)) == (0, {"sound": True, "problems": []})
    assert "rebuilt" in err
    assert "rebuilt" not in videobert("verify", copied_index, "--repair")[2]


def test_verify_cannot_repair_the_ledger(videobert, copied_index):
    next((copied_index / "videos").glob("part-*.parquet")).unlink()
    code, _, err = videobert("verify", copied_index, "--repair")
    assert code == 1
    assert "missing: restore it from a backup, or index again into a new folder" in err


def test_failures_can_be_written_as_parquet(videobert, videos, tmp_path):
    index = index_two_bad(videobert, videos, tmp_path)
    code, out, _ = videobert("failures", index, "--out", tmp_path / "failures.parquet")
    assert (code, out) == (0, f"2 failures written to {tmp_path / 'failures.parquet'}\n")
    listed = [json.loads(line) for line in videobert("failures", index, "--json")[1].splitlines()]
    assert pq.read_table(tmp_path / "failures.parquet").to_pylist() == listed


@pytest.mark.parametrize("verb", ["remove", "retry", "compact"])
def test_every_verb_has_help_with_an_example(videobert, verb):
    code, out, _ = videobert(verb, "--help")
    assert code == 0
    assert f"Example: videobert {verb}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["remove", "{tmp}/none", "a.mp4"], 1, "there is no index"),
        (["remove", "{index}"], 2, "VIDEO"),
        (["retry", "{tmp}/none"], 1, "there is no index"),
        (["compact", "{tmp}/none"], 1, "there is no index"),
        (["compact", "{index}", "--older-than-hours", "-1"], 2, "older-than-hours"),
        (["failures", "{index}", "--out", "{tmp}"], 2, "is a folder"),
        (["failures", "{index}", "--out", "{tmp}/no/such/folder.parquet"], 1, "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line(videobert, indexed, tmp_path, args, code, text):
    got, out, err = videobert(*(arg.format(tmp=tmp_path, index=indexed) for arg in args))
    assert (got, out) == (code, "")
    assert text in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_prune_names_the_empty_folder_whose_videos_stay(videobert, index, videos, options):
    (videos / "sub" / "c.avi").unlink()
    code, out, err = videobert("index", videos, "--into", index, "--model", "tiny_test", "--prune", "--json", *options)
    assert (code, json_line(out)["removed"]) == (0, 0)
    assert set(json_line(out)) == {"indexed", "unchanged", "failed", "removed", "segments", "video_s", "wall_s"}
    assert f"1 videos of the empty folder '{videos / 'sub'}' were not pruned" in err
    assert "not pruned" not in videobert("index", videos, "--into", index, "--model", "tiny_test")[2]
    assert len(ledger(index)) == 3


def test_videos_of_a_manifest_on_a_disk_that_is_not_mounted_stay(videobert, videos, tmp_path):
    (tmp_path / "list.txt").write_text("videos/a.mp4\nvideos/sub/c.avi\n")
    arguments = ("index", tmp_path / "list.txt", "--into", tmp_path / "i", "--model", "tiny_test")
    videobert(*arguments)
    (videos / "sub" / "c.avi").unlink()
    code, _, err = videobert(*arguments, "--prune")
    assert code == 3
    assert "1 videos of the empty folder" in err
    assert "videos failed" not in err, "there is nothing of it among the failures"
    assert len(ledger(tmp_path / "i")) == 2
