"""The index directory: settings, ledger, moments and vectors as one."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from indexer.config import FORMAT_VERSION, IndexConfig
from indexer.errors import IndexFormatError, IndexNotFoundError, IndexSettingsError, StorageError
from indexer.store.ledger import Ledger
from indexer.store.segments_table import SegmentFile, SegmentsTable
from indexer.store.snapshot import SegmentRows, Snapshot, read_keys
from indexer.store.vectors import VectorManifest, build_vector_file, delete_older, delete_others

_SETTINGS = "index.json"


class IndexStore:
    """An index on storage. Open one with `open`, or `open_or_create` to write.

    Attributes:
        path: the directory.
        config: the settings in index.json.
    """

    def __init__(self, path: Path, config: IndexConfig) -> None:
        self.path = path
        self.config = config
        self.ledger = Ledger(path / "videos")
        self.segments = SegmentsTable(path / "segments")
        self.vectors_folder = path / "vectors"
        self._keys: dict[str, pa.Table] = {}

    @classmethod
    def open(cls, path: str | Path) -> IndexStore:
        """Opens an index that exists.

        Raises:
            IndexNotFoundError: there is none.
            IndexFormatError: it is of another format version or damaged.
        """
        path = Path(path)
        try:
            values = json.loads((path / _SETTINGS).read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise IndexNotFoundError(
                f"there is no index at {str(path)!r}: make one with `videobert index SOURCE --into {path}`"
            ) from error
        except (OSError, ValueError) as error:
            raise IndexFormatError(f"the settings {str(path / _SETTINGS)!r} cannot be read: {error}") from error
        found = values.get("format_version") if isinstance(values, dict) else None
        if found != FORMAT_VERSION:
            raise IndexFormatError(
                f"the index at {str(path)!r} has format {found!r}, this version reads format {FORMAT_VERSION}: "
                "index again into a new folder"
            )
        try:
            return cls(path, IndexConfig.from_dict(values))
        except (KeyError, TypeError) as error:
            raise IndexFormatError(f"the settings {str(path / _SETTINGS)!r} are incomplete: {error}") from error

    @classmethod
    def open_or_create(cls, path: str | Path, config: IndexConfig) -> IndexStore:
        """Opens the index and checks that it was made with `config`, or creates it.

        Raises:
            IndexSettingsError: it exists with another model, sampling rate or segment length.
            IndexFormatError: it exists in another format.
            StorageError: it cannot be written.
        """
        path = Path(path).absolute()
        if re.search("%[0-9A-Fa-f]{2}", str(path)):
            raise StorageError(
                f"the index path {str(path)!r} holds a percent code, which Delta tables cannot: rename it"
            )
        try:
            store = cls.open(path)
        except IndexNotFoundError:
            store = cls._create(path, config)
        _require_equal(store, config)
        _require_writable(path)
        return store

    @classmethod
    def _create(cls, path: Path, config: IndexConfig) -> IndexStore:
        if path.exists() and not path.is_dir():
            raise StorageError(f"the index path {str(path)!r} is a file: name a folder")
        if path.is_dir() and any(
            entry.name not in ("videos", "segments", "vectors")
            for entry in path.iterdir()
            if not entry.name.startswith(".")
        ):
            raise StorageError(
                f"the folder {str(path)!r} holds other files and no index: name a new or an empty folder"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            Ledger.create(path / "videos")
            SegmentsTable.create(path / "segments")
            _create_file(path / _SETTINGS, json.dumps(config.to_dict(), indent=2).encode())
        except OSError as error:
            raise StorageError(f"the index cannot be created at {str(path)!r}: {error.strerror or error}") from error
        return cls.open(path)

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The newest consistent view. Files already read by an earlier call are not read again."""
        ledger = self.ledger.snapshot(version)
        files = self.segments.files()
        self._keys = {file: self._keys[file] if file in self._keys else read_keys(file) for file in files}
        rows = SegmentRows(files, list(self._keys.values()), ledger.indexed)
        return Snapshot(self.config, ledger, rows, self.vectors_folder)

    def commit(self, videos: pa.Table, files: Sequence[SegmentFile], remove: Iterable[int] = ()) -> int:
        """Makes a batch visible: first its moments, then, in one atomic step, its videos.

        Args:
            videos: rows of `schema.VIDEOS`.
            files: segment files that hold their moments.
            remove: ids of other videos that are removed in the same step.

        Raises:
            StorageError: nothing of the batch is visible then.
        """
        self.segments.add(files)
        return self.ledger.commit(videos, remove)

    def build_vectors(self, *, anew: bool = False) -> VectorManifest | None:
        """Writes a vector file for the newest ledger version; None where it is covered already, or empty.

        Args:
            anew: write it even where one seems to cover the version, and delete all others.
        """
        snapshot = self.snapshot()
        coverage = snapshot.coverage
        is_covered = not coverage.uncovered and not coverage.tombstones and not coverage.damaged
        if snapshot.num_segments == 0 or (is_covered and not anew):
            return None
        manifest = build_vector_file(
            self.vectors_folder,
            vectors=snapshot.embeddings(),
            segment_ids=snapshot.rows.segment_ids,
            batch_ids=snapshot.rows.batch_ids,
            ledger_version=snapshot.ledger.version,
        )
        if anew or coverage.damaged:
            delete_others(self.vectors_folder, manifest)
        delete_older(self.vectors_folder)
        return manifest


def _require_equal(store: IndexStore, config: IndexConfig) -> None:
    found = store.config
    for what, theirs, ours in [
        ("the model", found.model, config.model),
        ("weights of the model (fingerprint)", found.model_fingerprint[:12], config.model_fingerprint[:12]),
        ("the frame rate", found.sampling.frame_rate_hz, config.sampling.frame_rate_hz),
        ("the segment length", found.sampling.segment_length_s, config.sampling.segment_length_s),
    ]:
        if theirs != ours:
            raise IndexSettingsError(
                f"the index at {str(store.path)!r} was made with another setting for {what}: {theirs!r}, now {ours!r}; "
                "use the same, or index into a new folder"
            )
    if found != replace(config):
        raise IndexSettingsError(
            f"the index at {str(store.path)!r} was made with other settings: index into a new folder"
        )


def _require_writable(path: Path) -> None:
    """Finds out before any work whether the folder takes files."""
    probe = path / f".write-test-{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"the index at {str(path)!r} cannot be written: {error.strerror or error}") from error


def _create_file(path: Path, data: bytes) -> None:
    """Writes a file that does not exist yet, whole or not at all; where another process was first, its file stays."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
