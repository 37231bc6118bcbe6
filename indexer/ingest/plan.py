"""What there is to do: the sources as listed, compared with what the ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from indexer.ingest.emptied import in_empty_folders
from indexer.ingest.files import VideoFile
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
    """What there is to do. Every file of the listing is in exactly one of the first three, in order of `uri`.

    Attributes:
        changed: not as it is in the ledger; or it failed before and is to be tried again.
        unchanged: as it is in the ledger, whether indexed or failed.
        vanished: URIs in the ledger that these sources cover but that no longer exist, in order.
        spared: likewise, but in an empty folder, perhaps of a disk that is not mounted: the folder by URI.
    """

    new: list[VideoFile] = field(default_factory=list)
    changed: list[VideoFile] = field(default_factory=list)
    unchanged: list[VideoFile] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    spared: dict[str, str] = field(default_factory=dict)


def diff(listing: Listing, known: Mapping[str, KnownVideo], *, retry_failed: bool = False) -> Plan:
    """Compares the fingerprint where the listing tells it, else size and modification time; and of indexed videos the
    subtitle file.

    Whether a file with another size or time really differs, its bytes must tell later.
    """
    plan = Plan()
    for file in listing.files:
        before = known.get(file.uri)
        if before is None:
            plan.new.append(file)
        elif _differs(file, before) or has_other_subtitles(file, before) or (retry_failed and before.status == FAILED):
            plan.changed.append(file)
        else:
            plan.unchanged.append(file)
    missing = {missing.uri: missing.gone for missing in listing.missing}
    unlisted = known.keys() - {file.uri for file in listing.files}
    gone = sorted(uri for uri in unlisted if missing.get(uri, listing.covers(uri)))
    plan.spared.update(in_empty_folders(gone))
    plan.vanished.extend(uri for uri in gone if uri not in plan.spared)
    return plan


def _differs(file: VideoFile, before: KnownVideo) -> bool:
    if file.fingerprint is not None and before.fingerprint is not None:
        return file.fingerprint != before.fingerprint
    return (file.size_bytes, file.mtime_ns) != (before.size_bytes, before.mtime_ns)


def has_other_subtitles(file: VideoFile, before: KnownVideo) -> bool:
    """Whether the subtitle file of an indexed video came, changed or went."""
    return before.status == INDEXED and file.subtitles is not None and file.subtitles != (before.subtitles or "")
