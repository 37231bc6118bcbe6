"""Damaged videos by the thousand, each through the guarded decoder and the encoder into an index: what became of them?

    python -m benchmarks.fuzzing                                # mutations of the demo videos
    python -m benchmarks.fuzzing --videos FOLDER --num 2000 --seed 1
    python -m benchmarks.fuzzing --videos FOLDER --start 1234 --num 1 --keep FOLDER2    # one of them again, to look at

The same seed makes the same files. The exit code is 1 if a decoder hung or crashed, if an error came that nobody
foresaw, or if a file is not accounted for: every file must be in the ledger, as indexed (perhaps in part) with all its
moments, or as failed with a reason.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import demo_videos, report
from indexer import schema
from indexer.config import IndexConfig, SamplingConfig
from indexer.ingest.encode import VideoEncoder
from indexer.ingest.files import VideoFile
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.paths import VIDEO_EXTENSIONS
from indexer.ingest.sources import list_videos
from indexer.store.index import IndexStore
from indexer.store.segments_table import write_segment_file
from model.weights import load_model, model_facts

_MODEL = "tiny_test"
_PER_BATCH = 50
_TIMEOUT_S = 30.0
# Where a file says what is in it: the beginning, and in MP4 and MOV the "moov" box, wherever that lies.
_HEADER_BYTES = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of whole videos; the demo's if not given")
    parser.add_argument("--num", type=int, default=2000, help="mutations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--keep", type=Path, help="leave the mutations in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.videos or demo_videos(Path(scratch) / "videos")
        clips = _clips(folder)
        numbers = range(arguments.start, arguments.start + arguments.num)
        result = fuzz(clips, numbers, arguments.seed, Path(scratch) / "fuzzing", keep=arguments.keep)
    report("fuzzing", {"clips": len(clips), "seed": arguments.seed, **result.figures()})
    if result.problems:
        sys.exit(1)


def _clips(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    return sorted(path for path in found if path.stat().st_size)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the mutations.

    Attributes:
        outcomes: how many of each (mutation kind, "indexed", "partial" or "failed", kind of error or "").
        num_hangs, num_crashes: how often a decoding child hung or died, those healed by the second try included.
        num_children: decoding children started; one is enough where none has to be replaced.
        unforeseen: mutations that ended in an error which nobody foresaw.
        unaccounted: mutations that are not in the ledger, or not with all their moments.
        slowest_s: the longest that one mutation took.
        wall_s: all of them.
    """

    outcomes: Counter[tuple[str, str, str]]
    num_hangs: int
    num_crashes: int
    num_children: int
    unforeseen: list[str]
    unaccounted: list[str]
    slowest_s: float
    wall_s: float

    @property
    def problems(self) -> int:
        return self.num_hangs + self.num_crashes + len(self.unforeseen) + len(self.unaccounted)

    def figures(self) -> dict[str, Any]:
        kinds = {f"mutation: {kind}": self._row({kind}) for kind in MUTATIONS}
        return {
            "mutations": self.outcomes.total(),
            **kinds,
            "all": self._row(set(MUTATIONS)),
            "hangs": self.num_hangs,
            "crashes": self.num_crashes,
            "decoding children started": self.num_children,
            "unforeseen errors": ", ".join(self.unforeseen) or 0,
            "files not accounted for": ", ".join(self.unaccounted) or 0,
            "slowest mutation": f"{self.slowest_s:.1f} s",
            "wall clock": f"{self.wall_s:.0f} s",
        }

    def _row(self, kinds: set[str]) -> str:
        status, errors = Counter[str](), Counter[str]()
        for (kind, outcome, error), count in self.outcomes.items():
            if kind in kinds:
                status[outcome] += count
                errors[error] += count if error else 0
        reasons = ", ".join(f"{error} {count}" for error, count in errors.most_common() if error)
        shown = ", ".join(f"{status[outcome]:4} {outcome}" for outcome in ("indexed", "partial", "failed"))
        return f"{shown} ({reasons})" if reasons else shown


def fuzz(clips: Sequence[Path], numbers: range, seed: int, scratch: Path, *, keep: Path | None = None) -> Result:
    """Makes the mutations, indexes them in small batches, and asks the ledger what became of each.

    Args:
        clips: whole videos.
        numbers: which mutations; each depends on its number and the seed alone.
        scratch: a folder that does not exist; an index is made in it.
        keep: where mutations are left; None deletes each batch once it is committed.
    """
    scratch.mkdir()
    store = _make_index(scratch / "index")
    started, slowest_s = time.perf_counter(), 0.0
    names: list[str] = []
    with GuardedDecoder(timeout_s=_TIMEOUT_S) as guard:
        encoder = VideoEncoder(load_model(_MODEL, device="cpu", num_threads=1), guard, SamplingConfig())
        for first in range(numbers.start, numbers.stop, _PER_BATCH):
            folder = keep or scratch / "batch"
            folder.mkdir(parents=True, exist_ok=True)
            batch = range(first, min(first + _PER_BATCH, numbers.stop))
            paths = [write_mutation(clips, number, seed, folder) for number in batch]
            names += [path.name for path in paths]
            slowest_s = max(slowest_s, _index_batch(store, encoder, f"batch-{first}", paths))
            if keep is None:
                shutil.rmtree(folder)
        counts = {
            "num_hangs": guard.num_timeouts, "num_crashes": guard.num_crashes, "num_children": guard.num_children
        }  # fmt: skip
    outcomes, unforeseen, unaccounted = _ask_the_ledger(store, names)
    return Result(
        outcomes=outcomes,
        unforeseen=unforeseen,
        unaccounted=unaccounted,
        slowest_s=slowest_s,
        wall_s=time.perf_counter() - started,
        **counts,
    )


def _make_index(path: Path) -> IndexStore:
    facts = model_facts(_MODEL)
    config = IndexConfig(
        model=_MODEL,
        model_fingerprint=facts.fingerprint,
        embedding_dim=facts.embedding_dim,
        feature_shape=facts.feature_shape,
    )
    return IndexStore.open_or_create(path, config)


def _index_batch(store: IndexStore, encoder: VideoEncoder, batch_id: str, paths: Sequence[Path]) -> float:
    """Encodes and commits files. Returns the seconds that the slowest one took."""
    videos, segments, slowest_s = [], [], 0.0
    for file in _files(paths):
        started = time.perf_counter()
        encoded = encoder.encode(file, batch_id)
        slowest_s = max(slowest_s, time.perf_counter() - started)
        videos.append(encoded.video)
        segments += encoded.segments
    table = pa.Table.from_pylist(segments, schema=schema.SEGMENTS)
    written = [write_segment_file(store.segments.folder, table)] if segments else []
    store.commit(pa.Table.from_pylist(videos, schema=schema.VIDEOS), written)
    return slowest_s


def _files(paths: Sequence[Path]) -> list[VideoFile]:
    return list(list_videos([str(path) for path in paths]).files)


def _ask_the_ledger(store: IndexStore, names: Sequence[str]) -> tuple[Counter[Any], list[str], list[str]]:
    snapshot = store.snapshot()
    moments = Counter(snapshot.videos["uri"].take(pa.array(snapshot.rows.video_rows)).to_pylist())
    rows = {Path(row["uri"]).name: row for row in snapshot.ledger.videos.to_pylist()}
    outcomes: Counter[tuple[str, str, str]] = Counter()
    unforeseen, unaccounted = [], []
    for name in names:
        row = rows.get(name)
        if row is None or not _is_whole(row, moments[row["uri"]]):
            unaccounted.append(name)
            continue
        status = "partial" if row["partial"] else row["status"]
        outcomes[name.split("-")[1].split(".")[0], status, row["error_kind"] or ""] += 1
        if row["error_kind"] == "Unexpected" or row["error_stage"] == "encode":
            unforeseen.append(f"{name}: {row['error_message']}")
    return outcomes, unforeseen, unaccounted


def _is_whole(row: dict[str, Any], num_moments: int) -> bool:
    if row["status"] == schema.FAILED:
        return bool(row["error_stage"] and row["error_kind"] and row["error_message"]) and num_moments == 0
    return row["num_segments"] == num_moments > 0


def write_mutation(clips: Sequence[Path], number: int, seed: int, folder: Path) -> Path:
    """Writes mutation `number` as NUMBER-KIND.EXTENSION; the kinds take turns."""
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    drawn = random.Random(f"{seed} {number}")
    clip, other = drawn.choice(clips), drawn.choice(clips)
    path = folder / f"{number:06d}-{kind}{clip.suffix.lower()}"
    path.write_bytes(MUTATIONS[kind](clip.read_bytes(), other.read_bytes(), drawn))
    return path


def _header(data: bytes, other: bytes, drawn: random.Random) -> bytes:
    """1 to 16 bytes of a header take other values, often extreme ones."""
    boxes = [(0, _HEADER_BYTES)]
    if (moov := data.find(b"moov")) >= 4:
        boxes.append((moov, moov + int.from_bytes(data[moov - 4 : moov])))
    start, end = drawn.choice(boxes)
    changed = bytearray(data)
    for _ in range(drawn.randint(1, 16)):
        at = drawn.randrange(start, max(start + 1, min(end, len(data))))
        changed[at : at + 1] = bytes([drawn.choice([0, 1, 0x7F, 0x80, 0xFF, drawn.randrange(256)])])
    return bytes(changed)


def _packets(data: bytes, other: bytes, drawn: random.Random) -> bytes:
    """1 to 20 runs of 1 to 256 bytes behind the beginning become noise."""
    changed = bytearray(data)
    for _ in range(drawn.randint(1, 20)):
        at = drawn.randrange(min(_HEADER_BYTES, len(data) // 2), len(data))
        noise = drawn.randbytes(min(drawn.randint(1, 256), len(data) - at))
        changed[at : at + len(noise)] = noise
    return bytes(changed)


def _truncation(data: bytes, other: bytes, drawn: random.Random) -> bytes:
    """Only a beginning is left; sometimes none."""
    return data[: drawn.randrange(len(data))]


def _splice(data: bytes, other: bytes, drawn: random.Random) -> bytes:
    """The beginning of one clip and the end of another."""
    return data[: drawn.randrange(1, len(data))] + other[drawn.randrange(len(other)) :]


def _flips(data: bytes, other: bytes, drawn: random.Random) -> bytes:
    """1 to 1000 bits anywhere are turned over."""
    changed = np.frombuffer(data, np.uint8).copy()
    for _ in range(int(10 ** drawn.uniform(0, 3))):
        changed[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    return changed.tobytes()


MUTATIONS: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "header": _header,
    "packets": _packets,
    "truncation": _truncation,
    "splice": _splice,
    "flips": _flips,
}


if __name__ == "__main__":
    main()
