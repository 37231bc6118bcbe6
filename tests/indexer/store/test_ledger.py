import threading
from pathlib import Path

import pyarrow as pa
import pytest

from indexer import schema
from indexer.errors import IndexFormatError
from indexer.store.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    Ledger.create(tmp_path / "videos")
    return Ledger(tmp_path / "videos")


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=schema.VIDEOS)


def uris(ledger: Ledger, version: int | None = None) -> list[str]:
    return sorted(ledger.snapshot(version).videos["uri"].to_pylist())


def test_commit_adds_videos(ledger, row_of):
    ledger.commit(table(row_of("/a"), row_of("/b")))
    ledger.commit(table(row_of("/c")))
    assert uris(ledger) == ["/a", "/b", "/c"]


def test_commit_replaces_a_known_video_and_adds_a_new_one_in_one_version(ledger, row_of):
    before = ledger.commit(table(row_of("/a"), row_of("/b")))
    after = ledger.commit(table(row_of("/a", batch_id="b9"), row_of("/c")))
    assert after == before + 1
    rows = {row["uri"]: row["batch_id"] for row in ledger.snapshot().videos.to_pylist()}
    assert rows == {"/a": "b9", "/b": "b0", "/c": "b0"}


def test_remove_takes_out_known_videos_and_ignores_others(ledger, row_of):
    ledger.commit(table(row_of("/a"), row_of("/b")))
    ledger.remove([schema.video_id("/a"), 12345])
    assert uris(ledger) == ["/b"]
    assert ledger.remove([12345]) == ledger.version()


def test_an_older_version_stays_readable(ledger, row_of):
    before = ledger.commit(table(row_of("/a")))
    ledger.remove([schema.video_id("/a")])
    assert uris(ledger, before) == ["/a"]
    assert uris(ledger) == []


def test_a_commit_of_somebody_else_in_between_is_not_lost(ledger, row_of):
    other = Ledger(ledger._folder)
    ledger.commit(table(row_of("/a")))
    other.commit(table(row_of("/b")))
    ledger.commit(table(row_of("/a", batch_id="new"), row_of("/b", batch_id="new")))
    assert [row["batch_id"] for row in ledger.snapshot().videos.to_pylist()] == ["new", "new"]


def test_concurrent_writers_neither_lose_nor_duplicate_a_video(ledger, row_of):
    def write(worker: int) -> None:
        own = Ledger(ledger._folder)
        for i in range(4):
            own.commit(table(row_of(f"/own/{worker}/{i}"), row_of("/shared", batch_id=f"w{worker}")))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uris(ledger) == sorted([f"/own/{w}/{i}" for w in range(3) for i in range(4)] + ["/shared"])


def test_every_column_is_documented_and_survives_a_round_trip(ledger, row_of):
    row = row_of("/a", title="Ein Titel ✓", fps=29.97, rotation_deg=90, has_audio=True, warning="cut short")
    ledger.commit(table(row))
    assert ledger.snapshot().videos.to_pylist() == [row]
    assert all(field.metadata[b"meaning"] for field in [*schema.VIDEOS, *schema.SEGMENTS])


def test_a_missing_table_is_reported(tmp_path):
    with pytest.raises(IndexFormatError, match="no readable table"):
        Ledger(tmp_path / "nothing").snapshot()


_ADDED = ["sampling_plan", "num_coded", "num_decoded", "num_encoded", "subtitles", "audio_language", "language"]


@pytest.fixture
def old_ledger(tmp_path, row_of, monkeypatch) -> Ledger:
    """One video, written before the columns in `_ADDED` existed."""
    from indexer.store import ledger as module

    old = pa.schema([field for field in schema.VIDEOS if field.name not in _ADDED])
    with monkeypatch.context() as before:
        before.setattr(schema, "VIDEOS", old)
        before.setattr(module, "_WRITTEN", schema.without_meanings(old))
        before.setattr(module, "_NULLABLE", pa.schema([field.with_nullable(True) for field in old]))
        Ledger.create(tmp_path / "videos")
        row = {name: value for name, value in row_of("/old").items() if name in old.names}
        Ledger(tmp_path / "videos").commit(pa.Table.from_pylist([row], schema=old))
    return Ledger(tmp_path / "videos")


def test_ledger_of_an_older_version_is_read_with_nothing_in_the_new_columns(old_ledger):
    (row,) = old_ledger.snapshot().videos.to_pylist()
    assert row["uri"] == "/old"
    assert [row[name] for name in _ADDED] == [None] * len(_ADDED)


@pytest.mark.parametrize("uris", [["/new"], ["/old"], ["/new", "/old"]])
def test_ledger_of_an_older_version_takes_new_rows_and_replaces_old_ones(old_ledger, row_of, uris):
    facts = {"sampling_plan": "sparse", "num_coded": 300, "num_decoded": 140, "num_encoded": 9, "language": "en"}
    old_ledger.commit(table(*(row_of(uri, **facts) for uri in uris)))

    rows = {row["uri"]: row for row in Ledger(old_ledger._folder).snapshot().videos.to_pylist()}
    assert set(rows) == {"/old", *uris}
    assert all(rows[uri][name] == value for uri in uris for name, value in facts.items())
    old_ledger.remove([schema.video_id("/old")])
    assert "/old" not in [row["uri"] for row in old_ledger.snapshot().videos.to_pylist()]


def test_two_writers_may_bring_a_ledger_up_to_date_at_once(old_ledger, row_of):
    others = [Ledger(old_ledger._folder) for _ in range(3)]
    threads = [threading.Thread(target=other.commit, args=(table(row_of(f"/{i}")),)) for i, other in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["uri"] for row in old_ledger.snapshot().videos.to_pylist()) == ["/0", "/1", "/2", "/old"]


def test_older_ledger_switches_to_other_settings(old_ledger, row_of):
    assert old_ledger.switch(table(row_of("/a", sampling_plan="linear")), version=old_ledger.version(), generation=1)
    assert [row["sampling_plan"] for row in old_ledger.snapshot().videos.to_pylist()] == ["linear"]


def test_settling_is_remembered_and_changes_no_row(old_ledger):
    before = old_ledger.snapshot()
    old_ledger.settle()
    after = Ledger(old_ledger._folder).snapshot()
    assert (before.is_settled, after.is_settled) == (False, True)
    assert after.videos.equals(before.videos)
    old_ledger.remove([schema.video_id("/old")])
    assert old_ledger.snapshot().is_settled
