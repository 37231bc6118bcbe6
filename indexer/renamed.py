"""Renamed videos: a new file with the bytes of a video whose own file is gone takes over its moments, undecoded.

The driver tells by its size, or the ETag of an object, whether a new file may be one; the worker, by its fingerprint.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from indexer import schema
from indexer.errors import IndexDirectoryError, VideoError
from indexer.ingest.encode import EncodedVideo
from indexer.ingest.files import VideoFile, fingerprint_file, is_gone
from indexer.ingest.paths import uri_to_path
from indexer.ingest.plan import KnownVideo
from indexer.ingest.transcripts import read_transcript, text_between
from indexer.store.snapshot import Snapshot
from indexer.stored import StoredMoments

_VIDEOS_AT_A_TIME = 10_000


def vanished_videos(files: Iterable[VideoFile], known: Iterable[KnownVideo]) -> dict[str, int]:
    """Indexed videos whose file no longer exists, and may have the bytes of one of these: URI → size in bytes.

    Args:
        files: new files.
        known: all videos of the ledger.
    """
    contents = np.unique(np.fromiter((hash(file.fingerprint or file.size_bytes) for file in files), dtype=np.int64))
    if not len(contents):
        return {}
    return {
        video.uri: video.size_bytes
        for some in _some_at_a_time(known)
        for video in _with_contents(contents, some)
        if video.status == schema.INDEXED and is_gone(uri_to_path(video.uri))
    }


def _with_contents(contents: np.ndarray, videos: Sequence[KnownVideo]) -> Iterator[KnownVideo]:
    """Those that have one of these hashed sizes or fingerprints, which are in order."""
    hashes = np.array([(hash(video.size_bytes), hash(video.fingerprint)) for video in videos], dtype=np.int64)
    nearest = contents[np.searchsorted(contents, hashes).clip(max=len(contents) - 1)]
    return itertools.compress(videos, (nearest == hashes).any(axis=1))


def _some_at_a_time(videos: Iterable[KnownVideo]) -> Iterator[list[KnownVideo]]:
    rest = iter(videos)
    while some := list(itertools.islice(rest, _VIDEOS_AT_A_TIME)):
        yield some


@dataclass(frozen=True, kw_only=True)
class CopiedVideo:
    """A renamed video under its new name.

    Attributes:
        encoded: what encoding it again would give.
        old_uri: its name until now.
    """

    encoded: EncodedVideo
    old_uri: str


class RenamedVideos:
    """Copies videos that an index holds."""

    def __init__(self, stored: StoredMoments) -> None:
        self._stored = stored

    def copy(self, file: VideoFile, batch_id: str) -> CopiedVideo | None:
        """The rows of a video under its new name, or None where it has to be encoded.

        That is where no vanished video has its bytes, or a subtitle file beside the new name says something else.
        """
        try:
            fingerprint = fingerprint_file(file.path)
            snapshot = self._stored.snapshot
            same_bytes = pc.equal(snapshot.videos["fingerprint"], fingerprint).fill_null(False).to_numpy()
            for number in np.flatnonzero(same_bytes):
                old_uri = snapshot.videos["uri"][int(number)].as_py()
                encoded = _renamed(snapshot, int(number), file, batch_id) if is_gone(uri_to_path(old_uri)) else None
                if encoded is not None:
                    return CopiedVideo(encoded=encoded, old_uri=old_uri)
        except (VideoError, IndexDirectoryError):
            pass  # encoding it says what is wrong
        return None


def _renamed(snapshot: Snapshot, number: int, file: VideoFile, batch_id: str) -> EncodedVideo | None:
    """Video `number` of the snapshot with its moments, as if it had been encoded from `file`."""
    rows = np.flatnonzero(snapshot.rows.video_rows == number)
    segments = snapshot.read(rows, schema.SEGMENTS.names).sort_by("start_s").to_pylist()
    video = snapshot.videos.slice(number, 1).to_pylist()[0]
    transcript = read_transcript(file)
    same_text = all(
        row["transcript"] == text_between(transcript.cues, row["start_s"], row["end_s"]) for row in segments
    )
    if len(segments) != video["num_segments"] or not same_text:
        return None
    identity = {"video_id": schema.video_id(file.uri), "batch_id": batch_id}
    listed = {"uri": file.uri, "size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, "attempts": 1}
    said = {"subtitles": transcript.subtitles, "language": transcript.language(video["audio_language"])}
    return EncodedVideo(
        video=video | identity | listed | said | {"indexed_at": datetime.datetime.now(datetime.UTC)},
        segments=[row | identity | {"segment_id": schema.segment_id(file.uri, row["start_s"])} for row in segments],
    )
