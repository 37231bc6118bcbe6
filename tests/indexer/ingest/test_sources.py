from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from indexer.errors import SourceError, VideoError
from indexer.ingest.files import MissingFile, VideoFile, fingerprint_file, is_gone
from indexer.ingest.paths import uri_to_path
from indexer.ingest.plan import KnownVideo, diff
from indexer.ingest.sources import Listing, list_videos

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def tree(tmp_path):
    """Makes files (their content is their name) and returns the folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path

    return make


def names(listing, folder):
    return [os.path.relpath(file.path, folder) for file in listing.files]


def test_folder_is_listed_with_all_below_it(tree):
    folder = tree("b.mp4", "a/c.MKV", "a/d/e.webm", "notes.txt", "a/cover.jpg")

    listing = list_videos([str(folder)])

    assert names(listing, folder) == ["a/c.MKV", "a/d/e.webm", "b.mp4"]
    assert listing.missing == []


def test_file_says_size_and_time(tree):
    path = tree("a.mp4") / "a.mp4"
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))

    (file,) = list_videos([str(path)]).files

    listed = {"size_bytes": 5, "mtime_ns": 1_700_000_000_123_456_789, "subtitles": ""}
    assert file == VideoFile(uri=str(path), path=str(path), **listed)


def test_hidden_files_and_folders_are_left_out(tree):
    folder = tree("a.mp4", ".b.mp4", ".cache/c.mp4", "d/._e.mp4")

    assert names(list_videos([str(folder)]), folder) == ["a.mp4"]


def test_links_are_followed_and_loops_end(tree, tmp_path_factory):
    folder, elsewhere = tree("a.mp4", "sub/b.mp4"), tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "c.mp4").touch()
    (folder / "file.mp4").symlink_to(elsewhere / "c.mp4")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "a_loop").symlink_to(folder)
    (folder / "sub" / "up").symlink_to("..")
    (folder / "itself").symlink_to("itself")

    listing = list_videos([str(folder)])

    assert names(listing, folder) == ["a.mp4", "file.mp4", "linked/c.mp4", "sub/b.mp4"]
    assert (listing.missing, listing.unlisted) == ([], [])


@pytest.mark.parametrize("as_glob", [False, True])
def test_what_has_the_name_of_a_video_and_is_none_is_told(tree, as_glob):
    """A link that leads nowhere may lead somewhere again, so its video is not taken for gone."""
    folder = tree("a.mp4", "notes.txt")
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "dangling.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.ts")
    (folder / "folder.mp4").mkdir()

    listing = list_videos([f"{folder}/*" if as_glob else str(folder)])

    assert names(listing, folder) == ["a.mp4"]
    assert {(Path(missing.uri).name, missing.reason, missing.gone) for missing in listing.missing} == {
        ("dangling.mp4", "it is a link that leads nowhere", False),
        ("loop.mp4", "the file cannot be read: Too many levels of symbolic links", False),
        ("pipe.ts", "it is not a regular file", False),
    }
    assert not is_gone(str(folder / "dangling.mp4"))


def test_folder_of_nothing_but_broken_links_is_an_error(tree):
    folder = tree("notes.txt")
    (folder / "dangling.mp4").symlink_to("nowhere")

    with pytest.raises(SourceError, match="no video that can be read: it is a link that leads nowhere"):
        list_videos([str(folder)])


def test_links_that_may_not_be_followed_do_not_end_the_listing(tree, monkeypatch):
    """As another user than root meets them: the kernel refuses to look at what they lead to."""
    folder = tree("a.mp4", "locked/b.mp4", "locked/more/c.mp4")
    (folder / "b.mp4").symlink_to("locked/b.mp4")
    (folder / "more").symlink_to("locked/more")
    real_stat, real_scandir = os.stat, os.scandir

    def refuse(path):
        if Path(path).name in ("b.mp4", "more", "locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def stat(path, **options):
        refuse(path)
        return real_stat(path, **options)

    class Entry(SimpleNamespace):
        def is_dir(self):
            refuse(self.path) if self.is_symlink() else None
            return os.path.isdir(self.path) if self.is_symlink() else self.entry.is_dir()

    @contextlib.contextmanager
    def scandir(path):
        refuse(path)
        with real_scandir(path) as entries:
            yield [Entry(name=e.name, path=e.path, is_symlink=e.is_symlink, entry=e) for e in entries]

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_videos([str(folder)])

    assert names(listing, folder) == ["a.mp4"]
    assert [Path(missing.uri).name for missing in listing.missing] == ["b.mp4"]
    assert [Path(missing.uri).name for missing in listing.unlisted] == ["locked", "more"]


def test_file_named_directly_counts_whatever_its_extension(tree):
    folder = tree("film.bin")

    assert names(list_videos([str(folder / "film.bin")]), folder) == ["film.bin"]


def test_glob_finds_at_any_depth(tree):
    folder = tree("a.mp4", "x/b.mp4", "x/y/c.mp4", "x/y/d.mkv", "x/e.txt")

    assert names(list_videos([f"{folder}/**/*.mp4"]), folder) == ["a.mp4", "x/b.mp4", "x/y/c.mp4"]
    assert names(list_videos([f"{folder}/x/*"]), folder) == ["x/b.mp4"]
    assert names(list_videos([f"{folder}/x/*.txt"]), folder) == ["x/e.txt"]


def test_name_that_looks_like_a_glob_is_taken_as_it_is(tree):
    folder = tree("clips [2020]/a.mp4")

    assert names(list_videos([f"{folder}/clips [2020]"]), folder) == ["clips [2020]/a.mp4"]


def test_duplicates_collapse_and_result_is_in_order(tree):
    folder = tree("b.mp4", "a.mp4")

    listing = list_videos([f"{folder}/b.mp4", f"{folder}/./b.mp4", str(folder), f"file://{folder}/a.mp4"])

    assert names(listing, folder) == ["a.mp4", "b.mp4"]


def test_relative_path_becomes_absolute(tree, monkeypatch):
    folder = tree("sub/a.mp4")
    monkeypatch.chdir(folder)

    assert [file.uri for file in list_videos(["sub/../sub"]).files] == [str(folder / "sub/a.mp4")]


def test_typescript_is_no_video_but_a_transport_stream_is(tree, synthetic):
    folder = tree("code.ts")
    synthetic.write("film.ts", range(0, 400, 40))

    assert names(list_videos([str(folder)]), folder) == ["film.ts"]


def test_name_that_is_not_utf8_has_a_valid_uri_that_leads_back(tree):
    folder = tree("a.mp4")
    path = os.path.join(os.fsencode(folder), b"caf\xe9 100%.mp4")
    with open(path, "wb"):
        pass

    listing = list_videos([str(folder)])

    uri = next(file.uri for file in listing.files if file.uri.startswith("file://"))
    assert uri.endswith("/caf%E9%20100%25.mp4")
    assert os.fsencode(uri_to_path(uri)) == path
    assert listing.covers(uri)
    assert [file.uri for file in list_videos([uri]).files] == [uri]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("none", "does not exist"),
        ("none/**/*.mp4", "matches no file"),
        ("empty", "is empty"),
        ("texts", r"holds 2 files, none with a video extension \(\.md, \.txt\); name a file directly"),
        ("texts/*", "matches 2 files, none with a video extension"),
        ("gs://bucket", "only s3:// is supported"),
        ("https://example.org/a.mp4", "download it"),
    ],
)
def test_source_without_videos_raises_and_says_why(tree, monkeypatch, source, text):
    folder = tree("texts/a.txt", "texts/b.md")
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)

    with pytest.raises(SourceError, match=text) as caught:
        list_videos([source])

    assert "\n" not in str(caught.value)


def test_no_sources_raise():
    with pytest.raises(SourceError, match="no source given"):
        list_videos([])


def test_pipe_is_not_opened(tree):
    folder = tree("a.mp4")
    os.mkfifo(folder / "b.mp4")

    listing = list_videos([str(folder)])

    assert names(listing, folder) == ["a.mp4"]
    assert [missing.reason for missing in listing.missing] == ["it is not a regular file"]
    with pytest.raises(SourceError, match="regular file"):
        list_videos([str(folder / "b.mp4")])


def test_manifest_lists_relative_to_its_folder_and_tells_what_is_missing(tree):
    folder = tree("lists/m.txt", "videos/a.mp4", "videos/b.bin")
    (folder / "lists/m.txt").write_text(f"../videos/a.mp4\nfile://{folder}/videos/b.bin\nnone.mp4\n../videos\n")

    listing = list_videos([str(folder / "lists/m.txt")])

    assert names(listing, folder) == ["videos/a.mp4", "videos/b.bin"]
    assert listing.missing == [
        MissingFile(uri=str(folder / "lists/none.mp4"), reason="the file does not exist", gone=True),
        MissingFile(uri=str(folder / "videos"), reason="it is a folder, not a file"),
    ]


@needs_user
def test_folder_that_cannot_be_listed_is_told_and_hides_what_it_held(tree):
    folder = tree("a.mp4", "locked/b.mp4")
    (folder / "locked").chmod(0)
    try:
        listing = list_videos([str(folder)])
    finally:
        (folder / "locked").chmod(0o755)

    assert [unlisted.uri for unlisted in listing.unlisted] == [str(folder / "locked")]
    assert not listing.covers(str(folder / "locked/b.mp4"))
    assert listing.covers(str(folder / "c.mp4"))


def known(*files, **changes):
    fields = ("uri", "size_bytes", "mtime_ns")
    return [
        KnownVideo(**{"status": "indexed", **{key: getattr(file, key) for key in fields}, **changes}) for file in files
    ]


def told(plan):
    return list(plan.new), list(plan.changed), plan.num_unchanged, plan.num_still_failed


def file(uri, size_bytes=1, mtime_ns=1):
    return VideoFile(uri=uri, path=uri, size_bytes=size_bytes, mtime_ns=mtime_ns)


def test_diff_tells_new_changed_and_unchanged():
    old, grown, touched, new = file("/v/a"), file("/v/b"), file("/v/c"), file("/v/d")

    plan = diff(
        Listing(files=[old, grown, touched, new], roots=("/v/",)),
        known(old) + known(grown, size_bytes=2) + known(touched, mtime_ns=2),
    )

    assert told(plan) == ([new], [grown, touched], 1, 0)
    assert plan.vanished == []


@pytest.mark.parametrize(
    ("listed", "remembered", "is_changed"),
    [
        ("", "", False),
        (".srt bytes:1", ".srt bytes:1", False),
        (".srt bytes:1", "", True),
        (".srt bytes:1", ".srt bytes:2", True),
        ("", ".srt bytes:1", True),
        ("", "?", True),
        ("", None, False),
        (".srt bytes:1", None, True),
        (None, ".srt bytes:1", False),
    ],
)
def test_diff_notices_subtitles_of_indexed_videos(listed, remembered, is_changed):
    video = replace(file("/v/a"), subtitles=listed)
    plan = diff(Listing(files=[video]), known(video, subtitles=remembered))
    assert told(plan) == (([], [video], 0, 0) if is_changed else ([], [], 1, 0))
    assert told(diff(Listing(files=[video]), known(video, subtitles=remembered, status="failed"))) == ([], [], 0, 1)


def test_folders_globs_and_manifests_tell_of_subtitles(tree):
    folder = tree("a.mp4", "a.srt", "x/b.mp4", "x/b.de.vtt", "x/c.mp4", "x/a.srt")
    (folder / "list.txt").write_text("a.mp4\nx/b.mp4\nx/c.mp4\n")
    for source in (folder, f"{folder}/**/*.mp4", folder / "list.txt"):
        found = {Path(video.path).name: video.subtitles.split(" ")[0] for video in list_videos([str(source)]).files}
        assert found == {"a.mp4": ".srt", "b.mp4": ".de.vtt", "c.mp4": ""}
    (named,) = list_videos([str(folder / "x" / "b.mp4")]).files
    assert named.subtitles.startswith(".de.vtt mtime_ns:")


def test_folder_of_a_manifest_is_listed_once(tree, monkeypatch):
    folder = tree(*(f"{number}.mp4" for number in range(9)), "3.srt")
    (folder / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(9)))
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    assert len(list_videos([str(folder / "list.txt")]).files) == 9
    assert listed == [str(folder)]


def test_diff_leaves_failed_videos_alone_unless_asked():
    failed = file("/v/a")
    listing = Listing(files=[failed])

    assert told(diff(listing, known(failed, status="failed"))) == ([], [], 0, 1)
    assert told(diff(listing, known(failed, status="failed"), retry_failed=True)) == ([], [failed], 0, 0)


def test_diff_finds_vanished_videos_only_where_it_looked():
    listing = Listing(
        files=[],
        missing=[MissingFile(uri="/m/gone", reason="", gone=True), MissingFile(uri="/m/locked", reason="")],
        unlisted=[MissingFile(uri="/v/locked", reason="")],
        roots=("/v/",),
        patterns=("/g/*.mp4",),
    )
    uris = ["/v/a", "/v/locked/b", "/vv/c", "/g/d.mp4", "/g/d.mkv", "/g/x/d.mp4", "/m/gone", "/m/locked"]

    plan = diff(listing, known(*(file(uri) for uri in sorted(uris))))

    assert plan.vanished == ["/g/d.mp4", "/m/gone", "/v/a"]


def test_vanished_videos_of_a_folder_and_a_glob_are_those_deleted(tree):
    folder = tree("x/a.mp4", "x/b.mp4", "x/c.mkv")
    before = known(*list_videos([str(folder)]).files)
    (folder / "x/b.mp4").unlink()
    (folder / "x/c.mkv").unlink()

    assert diff(list_videos([str(folder)]), before).vanished == [str(folder / "x/b.mp4"), str(folder / "x/c.mkv")]
    assert diff(list_videos([f"{folder}/**/*.mp4"]), before).vanished == [str(folder / "x/b.mp4")]
    assert diff(list_videos([f"{folder}/x/a.mp4"]), before).vanished == []


def test_diff_of_many_files_is_fast():
    files = [file(f"/v/{i:07d}.mp4") for i in range(100_000)]
    before = known(*files[: len(files) // 2], *(file(f"/v/gone/{i:05d}") for i in range(50_000)))

    started = time.process_time()
    plan = diff(Listing(files=files, roots=("/v/",)), before)

    assert time.process_time() - started < 1.0
    assert (len(plan.new), plan.num_unchanged, len(plan.vanished)) == (50_000, 50_000, 50_000)


def test_fingerprint_is_that_of_the_bytes(tmp_path):
    import hashlib

    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)

    expected = hashlib.blake2b(data, digest_size=16).hexdigest()
    assert fingerprint_file(str(tmp_path / "a")) == f"blake2b:{expected}"


def test_fingerprint_of_no_file_raises(tmp_path):
    with pytest.raises(VideoError) as caught:
        fingerprint_file(str(tmp_path / "none"))

    assert (caught.value.stage, caught.value.kind) == ("read", "NotFound")
