"""Long videos in parts: which are worth cutting up, where, and how the results of the parts become one.

Parts are cut where groups of moments begin, so the rows are those of a video read in one go. The ledger row of a video
is made when all its parts are there; until then none of its files is committed, and a run that is killed leaves only
files that no table names.
"""

from __future__ import annotations

import heapq
import math
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice, takewhile

import pyarrow as pa

from indexer import schema
from indexer.batches import EncoderSettings
from indexer.config import SamplingConfig
from indexer.errors import VideoError
from indexer.ingest.encode import MOMENTS_AT_ONCE
from indexer.ingest.files import fingerprint_file
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.sampled import DecodeLimits, VideoInfo
from indexer.ingest.video_rows import changed_row, failure, joined_facts
from indexer.work import BatchResult, VideoPart, WorkItem, work_order

# A video that is more than this share of one worker's work is cut up, so that no worker is left with it at the end.
_SHARE_OF_A_WORKER = 1 / 4
# Below, a part is not worth opening the file for.
_MIN_PART_BYTES = 16 << 20
# Videos that are asked for their length, so many at a time.
_MAX_PROBED, _PROBED_AT_ONCE = 256, 8


def cut_long_videos(items: Collection[WorkItem], num_workers: int, settings: EncoderSettings) -> Collection[WorkItem]:
    """Replaces videos that would keep one worker busy long after the others by their parts.

    At most four videos a worker are opened for it, whatever there is to do. One that does not say how long it is, or
    whose bytes may be in the index already, stays whole.

    Args:
        items: the videos to encode, in `work_order`.
        num_workers: workers that will share them; one shares nothing.
        settings: of the workers.

    Returns:
        The items, likewise in `work_order`, read from `items` whenever it is gone through.
    """
    if num_workers < 2:
        return items
    part_bytes = max(_MIN_PART_BYTES, int(sum(item.size_bytes for item in items) / num_workers * _SHARE_OF_A_WORKER))
    large = takewhile(lambda item: item.size_bytes > part_bytes, items)
    long = list(islice((item for item in large if not _is_stored(item)), _MAX_PROBED))
    if not long:
        return items
    with ThreadPoolExecutor(max_workers=_PROBED_AT_ONCE) as probes:
        lengths_s = probes.map(lambda item: _length_s(item, settings), long)
        cut = [
            _cut(item, length_s, -(-item.size_bytes // part_bytes), settings.sampling)
            for item, length_s in zip(long, lengths_s, strict=True)
        ]
    return _WithParts(items, [parts for parts in cut if len(parts) > 1])


class _WithParts(Collection[WorkItem]):
    """Items in `work_order`, some of them as parts.

    Args:
        items: the whole videos, in that order.
        parts: of those that were cut, few.
    """

    def __init__(self, items: Collection[WorkItem], parts: Sequence[Sequence[WorkItem]]) -> None:
        self._items = items
        self._parts = sorted(chain.from_iterable(parts), key=work_order)
        self._cut = {of_one[0].uri for of_one in parts}

    def __len__(self) -> int:
        return len(self._items) - len(self._cut) + len(self._parts)

    def __iter__(self) -> Iterator[WorkItem]:
        whole = (item for item in self._items if item.uri not in self._cut)
        return heapq.merge(whole, self._parts, key=work_order)

    def __contains__(self, item: object) -> bool:
        return any(item == each for each in self)


def _is_stored(item: WorkItem) -> bool:
    """Whether its moments may be in the index already."""
    return item.maybe_renamed or item.is_retold


def _length_s(item: WorkItem, settings: EncoderSettings) -> float:
    """What the file says of its length, at most what would be read of it; 0 if it is not to be cut up."""
    try:
        if item.known_fingerprint and fingerprint_file(item.file.path) == item.known_fingerprint:
            return 0.0
        with GuardedDecoder(timeout_s=settings.decode_timeout_s) as decoder:
            nothing = decoder.read_video(item.file.path, frame_rate_hz=1.0, size_px=32, start_s=0.0, end_s=0.0)
            infos = [message for message in nothing if isinstance(message, VideoInfo)]
    except VideoError:
        return 0.0  # a worker will say what is wrong
    return min(infos[0].stated_duration_s or 0.0, DecodeLimits.max_duration_s) if infos else 0.0


def _cut(item: WorkItem, length_s: float, num_parts: int, sampling: SamplingConfig) -> list[WorkItem]:
    """The parts of a video, whole groups of moments each; the video itself if they would be fewer than two."""
    group_s = MOMENTS_AT_ONCE * sampling.segment_length_s
    num_groups = math.ceil(length_s / group_s)
    groups_a_part = math.ceil(num_groups / num_parts)
    firsts = range(0, num_groups, groups_a_part) if num_groups else range(0)
    if len(firsts) < 2:
        return [item]
    batch_id = uuid.uuid4().hex
    starts_s = [first * MOMENTS_AT_ONCE * sampling.segment_length_s for first in firsts]
    return [
        replace(
            item,
            known_fingerprint=None,
            part=VideoPart(batch_id=batch_id, number=number, num_parts=len(firsts), start_s=start_s, end_s=end_s),
        )
        for number, (start_s, end_s) in enumerate(zip(starts_s, [*starts_s[1:], None], strict=True))
    ]


def joined_parts(results: Iterable[BatchResult]) -> Iterator[BatchResult]:
    """Passes whole batches on at once, and the parts of a video as one result when the last of them has come."""
    waiting: dict[str, list[BatchResult]] = {}
    for result in results:
        if result.part is None:
            yield result
            continue
        parts = waiting.setdefault(result.part.batch_id, [])
        parts.append(result)
        if len(parts) == result.part.num_parts:
            yield _joined(waiting.pop(result.part.batch_id))


def _joined(results: Sequence[BatchResult]) -> BatchResult:
    """All parts of one video, in any order -> the video. It fails as its first failed part does."""
    parts = sorted(results, key=lambda result: result.part.number if result.part else 0)
    rows = [part.videos.to_pylist()[0] for part in parts]
    first = rows[0]
    failed = next((row for row in rows if row["status"] == schema.FAILED), None)
    if failed is not None:
        row = failed | {"fingerprint": failed["fingerprint"] or first["fingerprint"]}
    elif not _read_of_one_state(parts):
        row = changed_row(first["uri"], first["attempts"], is_gone=False)
    elif not any(row["num_frames"] for row in rows):
        row = first | failure("decode", "NoFrames", "no frame could be decoded") | {"batch_id": ""}
    else:
        warnings = dict.fromkeys(row["warning"] for row in rows if row["warning"])
        row = first | {
            "num_segments": sum(row["num_segments"] for row in rows),
            "num_frames": sum(row["num_frames"] for row in rows),
            "duration_s": max(row["duration_s"] or 0.0 for row in rows),
            "partial": any(row["partial"] for row in rows),
            "warning": "; ".join(warnings) or None,
            "indexed_at": max(row["indexed_at"] for row in rows),
            **joined_facts(rows),
        }
    is_indexed = row["status"] == schema.INDEXED
    return BatchResult(
        videos=pa.Table.from_pylist([row], schema=schema.VIDEOS),
        files=[file for part in parts for file in part.files] if is_indexed else [],
    )


def _read_of_one_state(parts: Sequence[BatchResult]) -> bool:
    """Whether all workers saw the same file. What only one machine can tell, such as inodes, is compared there."""
    versions = [part.version for part in parts if part.version]
    seen_by_all = {version.listed for version in versions}
    on_hosts = {version.host for version in versions}
    return len(seen_by_all) <= 1 and len({(version.host, version.exact) for version in versions}) == len(on_hosts)
