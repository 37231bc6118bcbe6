"""Renamed videos: the moments are taken over without decoding, and are those of a fresh index."""

import os
import shutil
from pathlib import Path

import pytest

from indexer import schema
from indexer.errors import IndexFormatError
from indexer.store.index import IndexStore
from indexer.store.verify import verify


def names_in(tmp_path) -> list[str]:
    videos = IndexStore.open(tmp_path / "index").ledger.snapshot().videos
    return sorted(Path(uri).name for uri in videos["uri"].to_pylist())


def facts(tmp_path, into: str, name: str) -> dict:
    rows = IndexStore.open(tmp_path / into).ledger.snapshot().videos.to_pylist()
    (row,) = [row for row in rows if Path(row["uri"]).name == name]
    return {key: value for key, value in row.items() if key not in ("batch_id", "indexed_at")}


def test_renamed_video_gives_the_rows_of_a_fresh_index_undecoded(videos, run_index, rows_of, tmp_path, decoded):
    run_index(videos)
    decoded.clear()
    (videos / "a.mp4").rename(videos / "sub" / "renamed.mp4")
    run = run_index(videos, prune=True)
    assert decoded == []
    assert (run.indexed, run.unchanged, run.removed, run.segments) == (1, 2, 1, 2)
    assert run.video_s == pytest.approx(12, abs=0.2)
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")
    assert facts(tmp_path, "index", "renamed.mp4") == facts(tmp_path, "fresh", "renamed.mp4")
    assert verify(IndexStore.open(tmp_path / "index")) == []


def test_old_name_stays_without_prune(videos, run_index, tmp_path, decoded):
    run_index(videos)
    decoded.clear()
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    run = run_index(videos)
    assert (decoded, run.indexed, run.removed) == ([], 1, 0)
    assert names_in(tmp_path) == ["a.mp4", "b.mkv", "c.avi", "renamed.mp4"]
    assert run_index(videos, prune=True).removed == 1
    assert names_in(tmp_path) == ["b.mkv", "c.avi", "renamed.mp4"]


def test_old_name_goes_in_the_commit_that_brings_the_new_one(videos, run_index, tmp_path):
    run_index(videos)
    ledger = IndexStore.open(tmp_path / "index").ledger
    before = ledger.version()
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    run_index(videos, prune=True)
    assert ledger.version() == before + 1
    assert schema.video_id(str(videos / "a.mp4")) not in ledger.snapshot().videos["video_id"].to_pylist()


def test_other_bytes_of_the_same_size_are_encoded_and_the_vanished_one_is_pruned(
    videos, run_index, rows_of, tmp_path, decoded
):
    run_index(videos)
    decoded.clear()
    data = bytearray((videos / "a.mp4").read_bytes())
    (videos / "a.mp4").unlink()
    data[-1] ^= 1
    (videos / "other.mp4").write_bytes(data)
    run = run_index(videos, prune=True)
    assert (decoded, run.indexed, run.removed) == (["other.mp4"], 1, 1)
    assert names_in(tmp_path) == ["b.mkv", "c.avi", "other.mp4"]


def test_copy_is_encoded_while_its_original_is_there(videos, run_index, decoded):
    run_index(videos)
    decoded.clear()
    shutil.copy(videos / "a.mp4", videos / "copy.mp4")
    assert run_index(videos, prune=True).removed == 0
    assert decoded == ["copy.mp4"]


@pytest.mark.parametrize("with_subtitles", [True, False])
def test_renamed_video_is_encoded_when_its_subtitles_did_not_come_along(
    videos, run_index, rows_of, decoded, with_subtitles
):
    run_index(videos)
    decoded.clear()
    (videos / "b.mkv").rename(videos / "renamed.mkv")
    if with_subtitles:
        (videos / "b.srt").rename(videos / "renamed.srt")
    run_index(videos, prune=True)
    assert decoded == ([] if with_subtitles else ["renamed.mkv"])
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")


def test_renamed_folder_is_taken_over_whole(videos, run_index, rows_of, decoded, tmp_path):
    run_index(videos)
    decoded.clear()
    videos.rename(tmp_path / "moved")
    run = run_index(tmp_path / "moved")
    assert (decoded, run.indexed, run.segments) == ([], 3, 4)
    run_index(tmp_path / "moved", into="fresh")
    moved = [row for row in rows_of() if row["uri"].startswith(str(tmp_path / "moved"))]
    assert moved == rows_of("fresh")


def test_damaged_index_file_is_no_obstacle(videos, run_index, tmp_path, decoded):
    run_index(videos / "a.mp4")
    decoded.clear()
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    for file in IndexStore.open(tmp_path / "index").segments.files():
        os.truncate(file, 50)
    with pytest.raises(IndexFormatError, match="cannot be read"):  # building vectors still needs the old file
        run_index(videos / "renamed.mp4")
    assert decoded == ["renamed.mp4"]
