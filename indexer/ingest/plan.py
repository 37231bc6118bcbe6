"""What there is to do: the sources as listed, compared with what the ledger knows.

Both pass by in order of their names, so that neither has to be in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from indexer.ingest.emptied import in_empty_folders
from indexer.ingest.files import VideoFile
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.sources import Listing
from indexer.schema import FAILED, INDEXED


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownVideo:
    """What the ledger holds of a video, and a run has to know."""

    uri: str
    size_bytes: int
    mtime_ns: int
    status: str
    fingerprint: str | None = None
    attempts: int = 1
    error_stage: str | None = None
    subtitles: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to do. Every file of the listing is new, changed, or left alone.

    Attributes:
        new: in order of `uri`.
        changed: likewise: not as it is in the ledger; or it failed before and is to be tried again.
        num_unchanged: as they are in the ledger, which holds their moments.
        num_still_failed: as they are in the ledger, which says that they failed.
        vanished: URIs in the ledger that these sources cover but that no longer exist, in order.
        spared: likewise, but in an empty folder, perhaps of a disk that is not mounted: the folder by URI.
    """

    new: OnDisk[VideoFile]
    changed: OnDisk[VideoFile]
    num_unchanged: int
    num_still_failed: int
    vanished: list[str]
    spared: dict[str, str]

    @property
    def num_to_encode(self) -> int:
        return len(self.new) + len(self.changed)


def diff(listing: Listing, known: Iterable[KnownVideo], *, retry_failed: bool = False) -> Plan:
    """Compares the fingerprint where the listing tells it, else size and modification time; and of indexed videos the
    subtitle file.

    Whether a file with another size or time really differs, its bytes must tell later.

    Args:
        listing: what there is.
        known: all videos of the ledger, in order of `uri`.
        retry_failed: failed videos count as changed.
    """
    new, changed = OnDisk(VideoFile), OnDisk(VideoFile)
    left_alone = Counter[str]()
    gone: list[str] = []
    missing = {missing.uri: missing.gone for missing in listing.missing}
    for file, before in _side_by_side(listing.files, known):
        if before is None:
            assert file is not None
            new.add(file)
        elif file is None:
            gone += [before.uri] if missing.get(before.uri, listing.covers(before.uri)) else []
        elif _differs(file, before) or has_other_subtitles(file, before) or (retry_failed and before.status == FAILED):
            changed.add(file)
        else:
            left_alone[before.status] += 1
    num_still_failed = left_alone[FAILED]
    spared = dict(in_empty_folders(gone))
    return Plan(
        new=new,
        changed=changed,
        num_unchanged=left_alone.total() - num_still_failed,
        num_still_failed=num_still_failed,
        vanished=[uri for uri in gone if uri not in spared],
        spared=spared,
    )


def _side_by_side(
    files: Iterable[VideoFile], known: Iterable[KnownVideo]
) -> Iterator[tuple[VideoFile | None, KnownVideo | None]]:
    """Both in order of `uri`, what is of one video together; never None and None."""
    rest = iter(known)
    before = next(rest, None)
    for file in files:
        while before is not None and before.uri < file.uri:
            yield None, before
            before = next(rest, None)
        if before is None or before.uri != file.uri:
            yield file, None
        else:
            yield file, before
            before = next(rest, None)
    while before is not None:
        yield None, before
        before = next(rest, None)


def _differs(file: VideoFile, before: KnownVideo) -> bool:
    if file.fingerprint is not None and before.fingerprint is not None:
        return file.fingerprint != before.fingerprint
    return (file.size_bytes, file.mtime_ns) != (before.size_bytes, before.mtime_ns)


def has_other_subtitles(file: VideoFile, before: KnownVideo) -> bool:
    """Whether the subtitle file of an indexed video came, changed or went."""
    return before.status == INDEXED and file.subtitles is not None and file.subtitles != (before.subtitles or "")
