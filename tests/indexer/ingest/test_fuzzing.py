"""A few mutations of small videos on their way into an index; `benchmarks/fuzzing.py` makes thousands of real ones."""

from __future__ import annotations

import pytest

from benchmarks.fuzzing import MUTATIONS, fuzz, write_mutation


@pytest.fixture(scope="module")
def clips(make_videos, tmp_path_factory):
    """One short video in each of five containers."""
    folder = tmp_path_factory.mktemp("clips")
    names = {"a.mp4": "libx264", "b.mkv": "libx264", "c.avi": "mpeg4", "d.ts": "libx264", "e.webm": "libvpx"}
    for name, codec in names.items():
        make_videos(folder).write(name, range(0, 2_000, 40), codec=codec)
    return sorted(folder.iterdir())


def test_every_mutation_is_accounted_for_and_none_hangs_or_crashes(clips, tmp_path):
    result = fuzz(clips, range(30), 1, tmp_path / "fuzzing")

    assert result.outcomes.total() == 30
    assert (result.num_hangs, result.num_crashes, result.unforeseen, result.unaccounted) == (0, 0, [], [])
    assert result.num_children == 1
    assert len({outcome for _, outcome, _ in result.outcomes}) > 1, "the mutations do some harm, and not only harm"


def test_hang_crash_and_lost_file_are_problems(clips, tmp_path, monkeypatch):
    """The fuzzer itself must be able to fail."""
    monkeypatch.setattr("benchmarks.fuzzing._files", lambda paths: [])
    lost = fuzz(clips, range(5), 1, tmp_path / "lost")
    monkeypatch.undo()

    monkeypatch.setattr("benchmarks.fuzzing._TIMEOUT_S", 0.0)
    hung = fuzz(clips, range(5), 1, tmp_path / "hung")

    assert len(lost.unaccounted) == lost.problems == 5
    assert hung.num_hangs == hung.problems == 10


def test_mutation_depends_on_seed_and_number_alone(clips, tmp_path):
    folders = [tmp_path / name for name in ("first", "again", "other")]
    for folder in folders:
        folder.mkdir()
    for number in range(len(MUTATIONS)):
        first, again = (write_mutation(clips, number, 1, folder).read_bytes() for folder in folders[:2])
        other = write_mutation(clips, number, 2, folders[2]).read_bytes()

        assert first == again
        assert other != first
        assert all(first != clip.read_bytes() for clip in clips)
