import json
import os
import socket
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import indexer.store.compact
from indexer import schema
from indexer.errors import IndexDirectoryError, IndexFormatError, UsageError
from indexer.store.compact import compact
from indexer.store.delta import data_files, open_delta
from indexer.store.index import IndexStore
from indexer.store.sweep import maintenance_lock
from indexer.store.vectors import list_manifests
from indexer.store.verify import repair_vectors, verify

HOUR_S = 3600


def visible(store):
    """Every visible row with all its columns, by id; order and files play no part."""
    snapshot = IndexStore.open(store.path).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    return sorted(rows, key=lambda row: row["segment_id"])


def stored(store):
    """All rows of the committed segment files, visible or not."""
    return sum(pq.ParquetFile(file).metadata.num_rows for file in store.segments.files())


def files_on_disk(store, folder="segments"):
    return {path.name for path in (store.path / folder).iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def many_once(make_once):
    maker = make_once()
    for i in range(10):
        maker.add(f"/v/{i}.mp4", batch_id=f"b{i}")
    maker.add("/v/3.mp4", batch_id="b10")
    maker.add("/v/10.mp4", batch_id="b11")
    maker.remove("/v/5.mp4")
    maker.store.build_vectors()
    maker.store.build_keywords()
    return maker


@pytest.fixture
def many(many_once, tmp_path):
    """Twelve files: videos 0 to 9, of which 3 has been changed and 5 removed."""
    return many_once.copied_to(tmp_path / "index")


def test_visible_rows_are_the_same_and_the_index_is_sound(many):
    before = visible(many.store)
    report = compact(many.store, older_than_hours=0)
    assert (report.files_before, report.files_after, report.rows_dropped) == (12, 1, 4)
    assert visible(many.store) == before
    assert stored(many.store) == len(before) == 20
    assert verify(IndexStore.open(many.store.path)) == []


def test_vectors_stay_valid_and_bit_identical(many):
    compact(many.store, older_than_hours=0)
    snapshot = IndexStore.open(many.store.path).snapshot()
    assert (snapshot.coverage.uncovered, snapshot.coverage.tombstones) == (0, 0)
    expected = {
        schema.segment_id(uri, start_s): vector.tobytes()
        for (uri, start_s), vector in many.vectors.items()
        if uri != "/v/5.mp4"
    }
    vectors = snapshot.embeddings()
    assert {int(i): v.tobytes() for i, v in zip(snapshot.rows.segment_ids, vectors, strict=True)} == expected


def test_everything_young_is_kept(many):
    before = visible(many.store)
    files = files_on_disk(many.store)
    report = compact(many.store)
    assert (report.files_after, report.rows_dropped, report.files_deleted) == (1, 0, 0)
    assert stored(many.store) == 24, "a run may be about to show them"
    assert files < files_on_disk(many.store)
    assert visible(many.store) == before


def test_merged_rows_do_not_become_young_again(many, monkeypatch):
    compact(many.store)
    tomorrow_s = time.time() + 25 * HOUR_S
    monkeypatch.setattr("indexer.store.compact.time.time", lambda: tomorrow_s)
    assert compact(many.store).rows_dropped == 4


def test_a_second_compaction_has_nothing_to_do(many):
    compact(many.store, older_than_hours=0)
    version = open_delta(many.store.segments.folder).version()
    report = compact(many.store, older_than_hours=0)
    assert (report.files_before, report.files_after, report.rows_dropped, report.files_deleted) == (1, 1, 0, 0)
    assert open_delta(many.store.segments.folder).version() == version


def test_merged_files_keep_to_the_size_asked_for(many):
    before = visible(many.store)
    compact(many.store, older_than_hours=0, target_rows=6)
    sizes = [pq.ParquetFile(file).metadata.num_rows for file in many.store.segments.files()]
    assert max(sizes) <= 6
    assert len(sizes) < 10
    assert visible(many.store) == before


def test_files_that_are_large_and_full_are_left_alone(many):
    files = many.store.segments.files()
    compact(many.store, older_than_hours=0, target_rows=4)  # every file of two rows is large then
    assert len(set(files) & set(many.store.segments.files())) == 10


def test_ledger_files_are_merged(many):
    ledger = many.store.path / "videos"
    rows = many.store.ledger.snapshot().videos.sort_by("uri")
    assert len(data_files(open_delta(ledger), ledger)) > 1
    compact(many.store, older_than_hours=0)
    assert len(data_files(open_delta(ledger), ledger)) == 1
    assert many.store.ledger.snapshot().videos.sort_by("uri").equals(rows)
    many.add("/v/11.mp4", "/v/3.mp4", batch_id="b12")
    assert len(visible(many.store)) == 22


def test_an_open_snapshot_goes_on_reading(many):
    before = visible(many.store)
    snapshot = many.store.snapshot()
    compact(many.store)
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    assert sorted(rows, key=lambda row: row["segment_id"]) == before


def test_leftovers_of_crashes_go_when_they_are_old(many):
    segments, vectors = many.store.segments.folder, many.store.vectors_folder
    leftovers = [segments / f".part-{'0' * 32}.parquet.tmp", vectors / "v9.faiss", vectors / ".v9.faiss.tmp"]
    orphan = segments / f"part-{'f' * 32}.parquet"
    for path in [*leftovers, orphan]:
        path.write_bytes(b"half")
    assert compact(many.store).files_deleted == 0
    for path in [*leftovers, orphan]:
        os.utime(path, (time.time() - 25 * HOUR_S,) * 2)
    report = compact(many.store)
    assert (report.files_deleted, report.bytes_freed) == (4, 16)
    assert not any(path.exists() for path in [*leftovers, orphan])
    assert verify(many.store) == []


def test_nothing_is_left_on_disk_that_the_tables_do_not_name(many):
    compact(many.store, older_than_hours=0)
    assert files_on_disk(many.store) == {os.path.basename(file) for file in many.store.segments.files()}
    folder = many.store.path / "videos"
    assert files_on_disk(many.store, "videos") == {
        os.path.basename(file) for file in data_files(open_delta(folder), folder)
    }


def test_a_batch_committed_meanwhile_is_not_lost(many, monkeypatch):
    real = indexer.store.compact._merge_all

    def merge_and_be_overtaken(folder, groups):
        mergers = real(folder, groups)
        many.add("/v/late.mp4", batch_id="late")
        return mergers

    monkeypatch.setattr(indexer.store.compact, "_merge_all", merge_and_be_overtaken)
    before = visible(many.store)
    report = compact(many.store, older_than_hours=1)
    assert report.files_after == 2
    late = [row for row in visible(many.store) if row["batch_id"] == "late"]
    assert len(late) == 2
    assert [row for row in visible(many.store) if row["batch_id"] != "late"] == before


def test_a_batch_whose_ledger_commit_comes_later_is_not_lost(many, row_of, monkeypatch):
    """The moments are committed, compaction runs, then the video is committed: what a run does, at its slowest."""
    real = many.store.ledger.commit

    def commit_after_compaction(rows, remove=()):
        compact(IndexStore.open(many.store.path))
        return real(rows, remove)

    monkeypatch.setattr(many.store.ledger, "commit", commit_after_compaction)
    many.add("/v/slow.mp4", batch_id="slow")
    assert verify(IndexStore.open(many.store.path)) == []
    assert len(visible(many.store)) == 22


def test_writers_and_compactions_at_once_lose_nothing(many):
    def write(worker):
        store = IndexStore.open(many.store.path)
        maker = type(many)(store)
        for i in range(6):
            maker.add(f"/w{worker}/{i}.mp4", batch_id=f"w{worker}-{i}")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        compact(IndexStore.open(many.store.path), older_than_hours=1)
    for writer in writers:
        writer.join()
    assert len(visible(many.store)) == 20 + 2 * 6 * 2
    assert IndexStore.open(many.store.path).ledger.snapshot().videos.num_rows == 10 + 12


def test_two_compactions_that_both_got_past_the_lock_do_not_both_win(many, monkeypatch):
    real = indexer.store.compact._merge_all

    def merge_and_be_overtaken(folder, groups):
        mergers = real(folder, groups)
        monkeypatch.setattr(indexer.store.compact, "_merge_all", real)
        (many.store.path / ".compact.lock").unlink()
        compact(IndexStore.open(many.store.path))
        return mergers

    monkeypatch.setattr(indexer.store.compact, "_merge_all", merge_and_be_overtaken)
    before = visible(many.store)
    with pytest.raises(IndexDirectoryError, match="another process has compacted"):
        compact(many.store)
    assert visible(many.store) == before


def lock_as(store, pid, host):
    (store.path / ".compact.lock").write_text(f'{{"host": "{host}", "pid": {pid}}}')


def test_a_second_compaction_at_the_same_time_is_refused(many):
    lock_as(many.store, os.getpid(), socket.gethostname())
    with pytest.raises(IndexDirectoryError, match="is being compacted or refreshed by another process") as error:
        compact(many.store)
    assert len(str(error.value).splitlines()) == 1
    assert len(many.store.segments.files()) == 12
    lock_as(many.store, 1, "another-host")
    with pytest.raises(IndexDirectoryError):
        compact(many.store)


def test_a_lock_of_a_dead_process_or_of_long_ago_is_taken_over(many):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock_as(many.store, dead.pid, socket.gethostname())
    assert compact(many.store).files_after == 1
    lock_as(many.store, 1, "another-host")
    os.utime(many.store.path / ".compact.lock", (1, 1))
    compact(many.store)
    assert not (many.store.path / ".compact.lock").exists()


DIES_LOCKED = """
import os, signal, sys
from pathlib import Path
from indexer.store.sweep import maintenance_lock
with maintenance_lock(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process began")
def test_a_lock_of_a_dead_process_whose_number_another_has_now_is_taken_over(many):
    """In a container the process that is started after a crash often has the number of the one that died."""
    subprocess.run([sys.executable, "-c", DIES_LOCKED, many.store.path], check=False)
    lock = many.store.path / ".compact.lock"
    owner = json.loads(lock.read_text())
    lock.write_text(json.dumps(owner | {"pid": os.getpid()}))
    with maintenance_lock(many.store.path):
        assert json.loads(lock.read_text())["pid"] == os.getpid() != owner["pid"]
        with pytest.raises(IndexDirectoryError, match="is being compacted"), maintenance_lock(many.store.path):
            pass


def test_a_full_disk_leaves_the_index_as_it_was(many, monkeypatch):
    before, files = visible(many.store), files_on_disk(many.store)
    real, calls = indexer.store.compact.write_segment_file, []

    def fill_up(folder, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(folder, rows)

    monkeypatch.setattr(indexer.store.compact, "write_segment_file", fill_up)
    with pytest.raises(OSError, match="No space left"):
        compact(many.store, older_than_hours=0, target_rows=6)
    assert (visible(many.store), files_on_disk(many.store)) == (before, files)


def test_an_index_without_moments_can_be_compacted(make_store):
    maker = make_store()
    assert compact(maker.store, older_than_hours=0).files_after == 0
    maker.add("/v/a.mp4")
    maker.remove("/v/a.mp4")
    report = compact(maker.store, older_than_hours=0)
    assert (report.files_after, report.rows_dropped) == (0, 2)
    assert visible(maker.store) == []
    assert verify(maker.store) == []


def test_hours_below_zero_are_refused(many):
    with pytest.raises(UsageError, match="at least 0"):
        compact(many.store, older_than_hours=-1)


def test_a_damaged_segment_file_stops_it_before_anything_changes(many):
    with open(many.store.segments.files()[0], "r+b") as stream:
        stream.truncate(50)
    with pytest.raises(IndexFormatError):
        compact(many.store, older_than_hours=0)
    assert len(many.store.segments.files()) == 12


def damage(store):
    (path,) = store.vectors_folder.glob("*.faiss")
    path.write_bytes(path.read_bytes()[:-10])


def exchange(store):
    """A file that is whole but holds other vectors."""
    from indexer.store.vector_writer import build_vector_file

    snapshot = store.snapshot()
    for path in store.vectors_folder.iterdir():
        path.unlink()
    build_vector_file(
        store.vectors_folder,
        parts=[snapshot.embeddings()[::-1]],
        dim=snapshot.config.embedding_dim,
        segment_ids=snapshot.rows.segment_ids,
        batch_ids=snapshot.rows.batch_ids,
        ledger_version=snapshot.ledger.version,
    )


def lose(store):
    for path in store.vectors_folder.iterdir():
        path.unlink()


def empty_manifest(store):
    (manifest,) = store.vectors_folder.glob("*.json")
    manifest.write_bytes(b"")


def garble_keyword_manifest(store):
    (manifest,) = store.keywords_folder.glob("*.json")
    manifest.write_text(manifest.read_text().replace("num_rows", "nun_rows"))


@pytest.mark.parametrize("harm", [damage, exchange, lose, empty_manifest, garble_keyword_manifest])
def test_repair_rebuilds_vectors(many, harm):
    harm(many.store)
    assert verify(many.store)
    assert repair_vectors(IndexStore.open(many.store.path))
    assert verify(IndexStore.open(many.store.path)) == []
    assert len(list(list_manifests(many.store.vectors_folder))) == 1


def test_repair_completes_vectors_and_leaves_sound_ones_alone(many):
    assert not repair_vectors(many.store)
    many.add("/v/new.mp4", batch_id="new")
    assert repair_vectors(many.store)
    assert many.store.snapshot().coverage.uncovered == 0


def test_statistics_of_merged_files_are_those_of_their_rows(many):
    compact(many.store, older_than_hours=0)
    (action,) = pa.table(open_delta(many.store.segments.folder).get_add_actions(flatten=True)).to_pylist()
    ids = [row["segment_id"] for row in visible(many.store)]
    assert (action["num_records"], action["min.segment_id"], action["max.segment_id"]) == (20, min(ids), max(ids))
