import os
from pathlib import Path

import pytest

from indexer.ingest.sidecars import Sidecars, language_of_name, sidecars_beside, subtitle_path


def chosen(folder: Path, video: str = "film.mp4") -> str | None:
    """Name of the file that is taken for a video."""
    found = sidecars_beside(str(folder / video)).of(video)
    return Path(str(subtitle_path(str(folder / video), found))).name if found else None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["film.srt"], "film.srt"),
        (["film.de.srt", "film.en.vtt"], "film.en.vtt"),
        (["film.de.srt", "film.fr.vtt"], "film.de.srt"),
        (["film.en.srt", "film.vtt"], "film.vtt"),
        (["film.pt-BR.srt"], "film.pt-BR.srt"),
        (["film.es-419.srt"], "film.es-419.srt"),
        (["film.SRT"], "film.SRT"),
        (["film.en.sdh.srt"], "film.en.sdh.srt"),
        (["film.sdh.srt"], "film.sdh.srt"),
        (["film.en.sdh.srt", "film.eng.vtt"], "film.eng.vtt"),
        (["film.en.forced.srt", "film.de.srt"], "film.de.srt"),
        (["film.forced.srt"], "film.forced.srt"),
        (["film.hi.srt", "film.en.hi.srt"], "film.en.hi.srt"),
        (["film2.srt", "film.txt", "film.part.two.srt", ".srt"], None),
        (["film.srt/"], None),
        ([], None),
    ],
)
def test_subtitle_file_is_found_by_its_stem(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert chosen(tmp_path) == expected


def test_names_with_dots_are_kept_apart(tmp_path):
    for name in ("a.b.srt", "a.b.en.srt", "a.de.srt"):
        (tmp_path / name).touch()
    assert chosen(tmp_path, "a.b.mp4") == "a.b.srt"
    assert chosen(tmp_path, "a.mkv") == "a.de.srt"
    assert chosen(tmp_path, "b.mkv") is None


@pytest.mark.parametrize(
    ("name", "language"),
    [("film.en.srt", "en"), ("film.pt-BR.vtt", "pt"), ("film.ger.sdh.srt", "de"), ("film.hi.srt", "hi"),
     ("film.srt", None), ("film.sdh.srt", None), ("film.forced.srt", None), ("film.one.srt", None)],
)  # fmt: skip
def test_language_is_what_the_name_states(tmp_path, name, language):
    (tmp_path / name).touch()
    assert language_of_name(sidecars_beside(str(tmp_path / "film.mp4")).of("film.mp4")) == language


def test_state_tells_name_time_and_size(tmp_path):
    (tmp_path / "film.en.srt").write_bytes(b"12345")
    os.utime(tmp_path / "film.en.srt", ns=(7, 1_700_000_000_123_456_789))
    found = sidecars_beside(str(tmp_path / "film.mp4")).of("film.mp4")
    assert found == ".en.srt mtime_ns:1700000000123456789 bytes:5"


def test_link_to_nowhere_and_missing_folder_are_no_subtitles(tmp_path):
    (tmp_path / "film.srt").symlink_to(tmp_path / "gone")
    assert Sidecars([tmp_path / "film.srt"]).of("film.mp4") == ""
    assert chosen(tmp_path) is None
    assert chosen(tmp_path / "none") is None


def test_object_has_its_etag_for_a_state(bucket):
    (bucket / "film.mp4").write_bytes(b"video")
    (bucket / "film.de.srt").write_bytes(b"1")
    (bucket / "film.en.srt").write_bytes(b"12")
    etag = (bucket / "film.en.srt").stat().etag
    found = sidecars_beside(f"{bucket}/film.mp4").of("film.mp4")
    assert found == f".en.srt etag:{etag} bytes:2"
    assert subtitle_path(f"{bucket}/film.mp4", found) == bucket / "film.en.srt"
