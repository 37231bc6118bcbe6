"""Renamed videos: a new file with the bytes of a video whose own file is gone takes over its moments, undecoded.

The driver tells by its size, or the ETag of an object, whether a new file may be one; the worker, by its fingerprint.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
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


def vanished_videos(files: Sequence[VideoFile], known: Iterable[KnownVideo]) -> dict[str, int]:
    """Indexed videos whose file no longer exists, and may have the bytes of one of these: URI → size in bytes.

    Args:
        files: new files.
        known: all videos of the ledger.
    """
    contents = {file.fingerprint or file.size_bytes for file in files}
    if not contents:
        return {}
    return {
        video.uri: video.size_bytes
        for video in known
        if video.status == schema.INDEXED
        and not contents.isdisjoint((video.size_bytes, video.fingerprint))
        and is_gone(uri_to_path(video.uri))
    }


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
