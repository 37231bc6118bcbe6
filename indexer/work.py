"""What goes to a worker and what comes back: plain data that passes between processes as JSON and Arrow."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.ingest.files import VideoFile
from indexer.ingest.on_disk import OnDisk
from indexer.phases import Spent
from indexer.store.segments_table import SegmentFile

# Of files and of items: largest first, so all workers finish at about the same time. As `OnDisk` takes it.
_ORDER = ("-size_bytes", "uri")


@dataclass(frozen=True, kw_only=True)
class VideoPart:
    """Which part of a long video a worker encodes: [start_s, end_s), cut where groups of moments are.

    Attributes:
        batch_id: of all parts of the video, for they are committed together.
        number: 0, 1, ...
        num_parts: how many there are.
        end_s: None in the last part, which goes on to the end.
    """

    batch_id: str
    number: int
    num_parts: int
    start_s: float
    end_s: float | None


@dataclass(frozen=True, kw_only=True)
class SeenVersion:
    """The state of a file that a worker read.

    Attributes:
        host: where.
        listed: what is the same on every machine: size and time, or ETag.
        exact: see `version_of`; unlike any other if the file changed meanwhile.
    """

    host: str
    listed: str
    exact: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkItem:
    """A video to encode.

    Attributes:
        file: the video as listed.
        attempts: how many runs have tried this version of the file, this one included.
        known_fingerprint: content that the index already holds for this URI; equal content is not encoded again.
        maybe_renamed: it is new and has the size of a video whose file is gone.
        is_retold: the index holds it, with another subtitle file.
        part: which part of it; None: all.
    """

    file: VideoFile
    attempts: int = 1
    known_fingerprint: str | None = None
    maybe_renamed: bool = False
    is_retold: bool = False
    part: VideoPart | None = None

    @property
    def uri(self) -> str:
        return self.file.uri

    @property
    def size_bytes(self) -> int:
        """Of the file, or of about the part."""
        return self.file.size_bytes // (self.part.num_parts if self.part else 1)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkItem:
        values = json.loads(text)
        part = values["part"] and VideoPart(**values["part"])
        return cls(**{**values, "file": VideoFile(**values["file"]), "part": part})


def work_order(item: WorkItem) -> tuple[int | str, ...]:
    """Sorts items by `_ORDER`, and the parts of a video as they follow each other."""
    keys = (-getattr(item, name[1:]) if name.startswith("-") else getattr(item, name) for name in _ORDER)
    return *keys, item.part.number if item.part else 0


def in_order_of_work(files: Iterable[VideoFile], limit: int | None = None) -> OnDisk[VideoFile]:
    """The first so many files, by `_ORDER`."""
    ordered = OnDisk(VideoFile, order=_ORDER)
    ordered.add_all(itertools.islice(files, limit))
    return ordered


class WorkItems(Collection[WorkItem]):
    """The work on some files, in `work_order`; each item is made when it is its turn.

    Args:
        files: in this order, see `in_order_of_work`.
        item_of: what to do about a file.
    """

    def __init__(self, files: Collection[VideoFile], item_of: Callable[[VideoFile], WorkItem]) -> None:
        self._files, self._item_of = files, item_of

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[WorkItem]:
        return map(self._item_of, self._files)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, WorkItem) and item.file in self._files


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What a worker made of a batch.

    Attributes:
        videos: rows of `schema.VIDEOS`, to be committed.
        unchanged: videos whose moments turned out to be known: URI → what is new of their rows in the ledger.
        files: the segment files; none if there are no moments.
        renamed_from: URIs whose moments were copied, because their files now have other names.
        part: set where `videos` is one row, about that part of a video.
        version: of that video's file.
        spent: what the worker did with its time.
    """

    videos: pa.Table
    unchanged: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[SegmentFile] = field(default_factory=list)
    renamed_from: list[str] = field(default_factory=list)
    part: VideoPart | None = None
    version: SeenVersion | None = None
    spent: Spent = field(default_factory=Spent)

    def to_row(self) -> dict[str, bytes]:
        """As one row of bytes columns, to pass between processes."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.VIDEOS) as writer:
            writer.write_table(self.videos)
        rest = {
            "unchanged": self.unchanged,
            "files": [file.to_dict() for file in self.files],
            "renamed_from": self.renamed_from,
            "part": self.part and asdict(self.part),
            "version": self.version and asdict(self.version),
            "spent": asdict(self.spent),
        }
        return {"videos": sink.getvalue().to_pybytes(), "rest": json.dumps(rest).encode()}

    @classmethod
    def from_row(cls, row: Mapping[str, bytes]) -> BatchResult:
        rest = json.loads(row["rest"])
        return cls(
            videos=pa.ipc.open_stream(row["videos"]).read_all(),
            unchanged=rest["unchanged"],
            files=[SegmentFile(**values) for values in rest["files"]],
            renamed_from=rest["renamed_from"],
            part=rest["part"] and VideoPart(**rest["part"]),
            version=rest["version"] and SeenVersion(**rest["version"]),
            spent=Spent(**rest["spent"]),
        )
