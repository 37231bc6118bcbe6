"""The unit of work: a few videos that one worker encodes and writes as one file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.config import SamplingConfig
from indexer.ingest.encode import EncodedVideo, VideoEncoder, empty_row, failure
from indexer.ingest.files import VideoFile
from indexer.ingest.guard import GuardedDecoder
from indexer.renamed import RenamedVideos
from indexer.storage import location
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
        maybe_renamed: it is new and has the size of a video whose file is gone.
    """

    file: VideoFile
    attempts: int = 1
    known_fingerprint: str | None = None
    maybe_renamed: bool = False

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
        renamed_from: URIs whose moments were copied, because their files now have other names.
    """

    videos: pa.Table
    unchanged: list[VideoFile]
    file: SegmentFile | None
    renamed_from: list[str] = field(default_factory=list)

    def to_row(self) -> dict[str, bytes]:
        """As one row of bytes columns, to pass between processes."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.VIDEOS) as writer:
            writer.write_table(self.videos)
        rest = {
            "unchanged": [asdict(file) for file in self.unchanged],
            "file": self.file and self.file.to_dict(),
            "renamed_from": self.renamed_from,
        }
        return {"videos": sink.getvalue().to_pybytes(), "rest": json.dumps(rest).encode()}

    @classmethod
    def from_row(cls, row: Mapping[str, bytes]) -> BatchResult:
        rest = json.loads(row["rest"])
        return cls(
            videos=pa.ipc.open_stream(row["videos"]).read_all(),
            unchanged=[VideoFile(**values) for values in rest["unchanged"]],
            file=rest["file"] and SegmentFile(**rest["file"]),
            renamed_from=rest["renamed_from"],
        )


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """All that a worker needs to start.

    Attributes:
        index_path: the index, which exists.
        model: preset or checkpoint.
        sampling: see `SamplingConfig`.
        device: "cpu" or "cuda".
        num_threads: threads of the encoder on CPU.
        decode_timeout_s: see `RunConfig`.
    """

    index_path: str
    model: str
    sampling: SamplingConfig
    device: str = "cpu"
    num_threads: int = 1
    decode_timeout_s: float = 60.0


class BatchEncoder:
    """Encodes batches one after the other, with one model and one guarded decoder."""

    def __init__(self, settings: EncoderSettings) -> None:
        self._folder = location(settings.index_path) / "segments"
        self._decoder = GuardedDecoder(timeout_s=settings.decode_timeout_s)
        model = load_model(settings.model, device=settings.device, num_threads=settings.num_threads)
        self._encoder = VideoEncoder(model, self._decoder, settings.sampling)
        self._renamed = RenamedVideos(settings.index_path)

    def encode(self, items: Sequence[WorkItem]) -> BatchResult:
        """Encodes the videos and writes their moments as one file.

        Raises:
            StorageError: the file could not be written.
        """
        batch_id = uuid.uuid4().hex
        videos: list[dict[str, Any]] = []
        unchanged: list[VideoFile] = []
        segments: list[dict[str, Any]] = []
        renamed_from: list[str] = []
        for item in items:
            copied = self._renamed.copy(item.file, batch_id) if item.maybe_renamed else None
            if copied is not None:
                renamed_from.append(copied.old_uri)
            encoded = copied.encoded if copied else self._encode(item, batch_id)
            if encoded.unchanged:
                unchanged.append(item.file)
            else:
                videos.append(encoded.video)
                segments += encoded.segments
        return BatchResult(
            videos=pa.Table.from_pylist(videos, schema=schema.VIDEOS),
            unchanged=unchanged,
            file=self._write(segments) if segments else None,
            renamed_from=renamed_from,
        )

    def _encode(self, item: WorkItem, batch_id: str) -> EncodedVideo:
        return self._encoder.encode(
            item.file, batch_id, attempts=item.attempts, known_fingerprint=item.known_fingerprint
        )

    def _write(self, segments: list[dict[str, Any]]) -> SegmentFile:
        return write_segment_file(self._folder, pa.Table.from_pylist(segments, schema=schema.SEGMENTS))

    def close(self) -> None:
        self._decoder.close()


def failed_batch(items: Sequence[WorkItem], kind: str, message: str) -> BatchResult:
    """The result of a batch that cannot be encoded: every video of it fails in stage "encode" with the same words."""
    rows = [
        empty_row(item.file.uri, size_bytes=item.file.size_bytes, mtime_ns=item.file.mtime_ns, attempts=item.attempts)
        | failure("encode", kind, message)
        for item in items
    ]
    return BatchResult(videos=pa.Table.from_pylist(rows, schema=schema.VIDEOS), unchanged=[], file=None)


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
