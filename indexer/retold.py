"""Retold videos: the subtitle file came, changed or went, and the picture is as it was.

The stored frame features are fused with the new words, in the groups in which the video was encoded, so the rows are
those of a fresh index to the last bit; nothing is decoded. Where the words turn out to be the same, nothing is written
but what the ledger says of the subtitle file.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc

from indexer import schema
from indexer.errors import IndexDirectoryError, VideoError
from indexer.ingest import encode
from indexer.ingest.encode import EncodedVideo
from indexer.ingest.files import VideoFile, fingerprint_file
from indexer.ingest.frame_model import FrameModel
from indexer.ingest.fuse import STORED, fuse_moments
from indexer.ingest.segments import window_of
from indexer.ingest.transcripts import Transcript, read_transcript, text_between
from indexer.store.snapshot import Snapshot
from indexer.stored import StoredMoments


class RetoldVideos:
    """Gives the moments of indexed videos other words.

    Args:
        stored: the index.
        model: that of the index.
    """

    def __init__(self, stored: StoredMoments, model: FrameModel) -> None:
        self._stored = stored
        self._model = model

    def retell(
        self, file: VideoFile, batch_id: str, on_segments: Callable[[list[dict[str, Any]]], None]
    ) -> EncodedVideo | None:
        """The video as encoding it again would give it, or None where it has to be encoded.

        That is where the picture is another one too, or what is stored of it cannot be read.

        Args:
            file: the video as listed.
            batch_id: the batch that the rows belong to.
            on_segments: takes rows of moments as they are made. They count only if the result is not None.
        """
        try:
            snapshot = self._stored.snapshot
            number = pc.index(snapshot.videos["uri"], file.uri).as_py()
            if number < 0 or not _is_same_file(file, video := snapshot.videos.slice(number, 1).to_pylist()[0]):
                return None
            rows = np.flatnonzero(snapshot.rows.video_rows == number)
            rows = rows[np.argsort(snapshot.rows.start_s[rows])]
            if len(rows) != video["num_segments"]:
                return None
            return self._retold(snapshot, rows, video, file, batch_id, on_segments)
        except (VideoError, IndexDirectoryError):
            return None  # encoding it says what is wrong

    def _retold(
        self,
        snapshot: Snapshot,
        rows: np.ndarray,
        video: dict[str, Any],
        file: VideoFile,
        batch_id: str,
        on_segments: Callable[[list[dict[str, Any]]], None],
    ) -> EncodedVideo:
        transcript = read_transcript(file)
        video |= {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, "subtitles": transcript.subtitles}
        video |= {"language": transcript.language(video["audio_language"])}
        if snapshot.read(rows, ["transcript"])["transcript"].to_pylist() == _texts(snapshot, rows, transcript):
            return EncodedVideo(video=video, segments=[], unchanged=True)
        length_s = snapshot.config.sampling.segment_length_s
        windows = {row: window_of(float(snapshot.rows.start_s[row]), length_s) for row in rows}
        for _, group in itertools.groupby(rows, key=lambda row: windows[row] // encode.MOMENTS_AT_ONCE):
            on_segments(self._retold_moments(snapshot, np.array(list(group)), transcript, batch_id))
        return EncodedVideo(
            video=video | {"batch_id": batch_id, "indexed_at": datetime.datetime.now(datetime.UTC)}, segments=[]
        )

    def _retold_moments(
        self, snapshot: Snapshot, rows: np.ndarray, transcript: Transcript, batch_id: str
    ) -> list[dict[str, Any]]:
        """Moments that were encoded together, with other words."""
        moments = snapshot.read(rows, schema.SEGMENTS.names).to_pylist()
        texts = _texts(snapshot, rows, transcript)
        shape = (-1, *snapshot.config.feature_shape)
        features = [np.frombuffer(moment["frame_features"], STORED).reshape(shape) for moment in moments]
        times_s = [np.array(moment["frame_times_s"]) - moment["start_s"] for moment in moments]
        fused = fuse_moments(self._model, features, times_s, texts)
        return [
            moment | new | {"transcript": text, "batch_id": batch_id}
            for moment, new, text in zip(moments, fused, texts, strict=True)
        ]


def _texts(snapshot: Snapshot, rows: np.ndarray, transcript: Transcript) -> list[str | None]:
    spans = zip(snapshot.rows.start_s[rows].tolist(), snapshot.rows.end_s[rows].tolist(), strict=True)
    return [text_between(transcript.cues, start_s, end_s) for start_s, end_s in spans]


def _is_same_file(file: VideoFile, video: dict[str, Any]) -> bool:
    listed = (file.size_bytes, file.mtime_ns) == (video["size_bytes"], video["mtime_ns"])
    return listed or fingerprint_file(file.path) == video["fingerprint"]
