"""The unit of work: a few videos that one worker encodes and writes as one file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.config import SamplingConfig
from indexer.ingest.encode import VideoEncoder
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.sources import VideoFile
from indexer.store.segments_table import SegmentFile, write_segment_file
from model.weights import load_model

# A batch should take seconds: long enough that its file is worth a commit, short enough that little is lost.
_MAX_VIDEOS = 8
_MAX_BYTES = 32 << 20
_BATCHES_PER_WORKER = 3


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """A video to encode.

    Attributes:
        file: the video as listed.
        attempts: how many runs have tried this version of the file, this one included.
        known_fingerprint: content that the index already holds for this URI; equal content is not encoded again.
    """

    file: VideoFile
    attempts: int = 1
    known_fingerprint: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkItem:
        values = json.loads(text)
        return cls(**{**values, "file": VideoFile(**values["file"])})


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What a worker made of a batch.

    Attributes:
        videos: rows of `schema.VIDEOS`, to be committed.
        unchanged: videos whose bytes turned out to be known; only their size or time as listed is new.
        file: the segment file, or None if there are no moments.
    """

    videos: pa.Table
    unchanged: list[VideoFile]
    file: SegmentFile | None

    def to_row(self) -> dict[str, bytes]:
        """As one row of bytes columns, to pass between processes."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.VIDEOS) as writer:
            writer.write_table(self.videos)
        rest = {"unchanged": [asdict(file) for file in self.unchanged], "file": self.file and self.file.to_dict()}
        return {"videos": sink.getvalue().to_pybytes(), "rest": json.dumps(rest).encode()}

    @classmethod
    def from_row(cls, row: Mapping[str, bytes]) -> BatchResult:
        rest = json.loads(row["rest"])
        return cls(
            videos=pa.ipc.open_stream(row["videos"]).read_all(),
            unchanged=[VideoFile(**values) for values in rest["unchanged"]],
            file=rest["file"] and SegmentFile(**rest["file"]),
        )


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """All that a worker needs to start.

    Attributes:
        segments_folder: where segment files go.
        model: preset or checkpoint.
        sampling: see `SamplingConfig`.
        device: "cpu" or "cuda".
        num_threads: threads of the encoder on CPU.
        decode_timeout_s: see `RunConfig`.
    """

    segments_folder: str
    model: str
    sampling: SamplingConfig
    device: str = "cpu"
    num_threads: int = 1
    decode_timeout_s: float = 60.0


class BatchEncoder:
    """Encodes batches one after the other, with one model and one guarded decoder."""

    def __init__(self, settings: EncoderSettings) -> None:
        self._folder = Path(settings.segments_folder)
        self._decoder = GuardedDecoder(timeout_s=settings.decode_timeout_s)
        model = load_model(settings.model, device=settings.device, num_threads=settings.num_threads)
        self._encoder = VideoEncoder(model, self._decoder, settings.sampling)

    def encode(self, items: Sequence[WorkItem]) -> BatchResult:
        """Encodes the videos and writes their moments as one file.

        Raises:
            StorageError: the file could not be written.
        """
        batch_id = uuid.uuid4().hex
        videos: list[dict[str, Any]] = []
        unchanged: list[VideoFile] = []
        segments: list[dict[str, Any]] = []
        for item in items:
            encoded = self._encoder.encode(
                item.file, batch_id, attempts=item.attempts, known_fingerprint=item.known_fingerprint
            )
            if encoded.unchanged:
                unchanged.append(item.file)
            else:
                videos.append(encoded.video)
                segments += encoded.segments
        file = None
        if segments:
            file = write_segment_file(self._folder, pa.Table.from_pylist(segments, schema=schema.SEGMENTS))
        return BatchResult(videos=pa.Table.from_pylist(videos, schema=schema.VIDEOS), unchanged=unchanged, file=file)

    def close(self) -> None:
        self._decoder.close()


def make_batches(items: Sequence[WorkItem], num_workers: int) -> list[list[WorkItem]]:
    """Cuts the work so that each batch takes seconds and all workers finish together: largest files first.

    Args:
        items: the videos to encode.
        num_workers: workers that will share them.
    """
    share = -(-len(items) // max(1, num_workers * _BATCHES_PER_WORKER))
    max_videos = min(_MAX_VIDEOS, max(1, share))
    batches: list[list[WorkItem]] = []
    size = 0
    for item in sorted(items, key=lambda item: (-item.file.size_bytes, item.file.uri)):
        if not batches or len(batches[-1]) == max_videos or size + item.file.size_bytes > _MAX_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += item.file.size_bytes
    return batches
