"""The index directory: settings, ledger, moments, vectors and keywords as one."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from deltalake.exceptions import DeltaError

from indexer.config import FORMAT_VERSION, IndexConfig
from indexer.errors import IndexFormatError, IndexNotFoundError, IndexSettingsError, StorageError
from indexer.storage import Location, create_whole, location, write_whole
from indexer.store.builds import build_keywords, build_vectors
from indexer.store.delta import data_files, detail_of, open_delta
from indexer.store.key_files import KnownKeys
from indexer.store.ledger import Ledger
from indexer.store.segment_rows import SegmentRows
from indexer.store.segments_table import SegmentFile, SegmentsTable
from indexer.store.snapshot import Snapshot
from indexer.store.unused_memory import give_back_unused_memory
from indexer.store.vector_shards import MapShards
from indexer.store.vectors import VectorManifest

_SETTINGS = "index.json"
_REFRESHED = "index-{generation}.json"
# What vector and keyword files need to know of videos; the rest, of millions of them, would be most of the ledger.
_VECTORS_OF = ["video_id", "status", "batch_id"]
_KEYWORDS_OF = [*_VECTORS_OF, "uri", "title"]


class IndexStore:
    """An index on storage. Open one with `open`, or `open_or_create` to write.

    Attributes:
        path: the directory, or the prefix in a bucket.
        config: the settings that the newest moments were made with when the store was opened.
    """

    def __init__(self, path: Location, config: IndexConfig) -> None:
        self.path = path
        self.ledger = Ledger(path / "videos")
        self._configs = {0: config}
        self.config = self._config_of(self.ledger.generation)
        self.segments = SegmentsTable(path / "segments")
        self.vectors_folder = path / "vectors"
        self.keywords_folder = path / "keywords"
        self.keys_folder = path / "keys"
        self._keys = KnownKeys(self.keys_folder, self.segments.folder)

    @classmethod
    def open(cls, path: str | Location) -> IndexStore:
        """Opens an index that exists.

        Raises:
            IndexNotFoundError: there is none.
            IndexFormatError: it is of another format version or damaged.
            StorageError: its bucket cannot be reached.
        """
        path = location(path)
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

    def _config_of(self, generation: int) -> IndexConfig:
        """The settings of a generation of the ledger; they never change."""
        if generation not in self._configs:
            file = self.path / _REFRESHED.format(generation=generation)
            try:
                self._configs[generation] = IndexConfig.from_dict(json.loads(file.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise IndexFormatError(f"the settings {str(file)!r} cannot be read: {error}") from error
        return self._configs[generation]

    def add_settings(self, config: IndexConfig) -> int:
        """Keeps the settings of a refresh that is about to be made.

        Returns:
            Their generation, for `Ledger.switch`: the first that is free, as a refresh that was killed leaves its own.

        Raises:
            StorageError: they could not be written.
        """
        data = json.dumps(config.to_dict(), indent=2).encode()
        for generation in itertools.count(self.ledger.generation + 1):
            try:
                with contextlib.suppress(FileExistsError):
                    create_whole(self.path / _REFRESHED.format(generation=generation), data)
                    return generation
            except OSError as error:
                raise StorageError(f"the index {str(self.path)!r} cannot be written: {error.strerror}") from error
        raise AssertionError("numbers do not end")

    @classmethod
    def open_or_create(cls, path: str | Location, config: IndexConfig) -> IndexStore:
        """Opens the index and checks that it was made with `config`, or creates it.

        Raises:
            IndexSettingsError: it exists with another model, sampling rate or segment length.
            IndexFormatError: it exists in another format.
            StorageError: it cannot be written.
        """
        path = location(path).absolute()
        if re.search("%[0-9A-Fa-f]{2}", str(path)):
            raise StorageError(
                f"the index path {str(path)!r} holds a percent code, which Delta tables cannot: rename it"
            )
        try:
            store = cls.open(path)
        except IndexNotFoundError:
            store = cls._create(path, config)
        _require_equal(store, config)
        store.config = replace(store.config, model=config.model)  # the same one, perhaps in another place by now
        _require_writable(path)
        return store

    @classmethod
    def _create(cls, path: Location, config: IndexConfig) -> IndexStore:
        if path.is_file():
            raise StorageError(f"the index path {str(path)!r} is a file: name a folder")
        if path.is_dir() and any(
            entry.name not in ("videos", "segments", "vectors", "keywords", "keys")
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
            with contextlib.suppress(FileExistsError):  # another process was first: its file stays
                create_whole(path / _SETTINGS, json.dumps(config.to_dict(), indent=2).encode())
        except (DeltaError, OSError) as error:
            detail = getattr(error, "strerror", None) or detail_of(error, path)
            raise StorageError(f"the index cannot be created at {str(path)!r}: {detail}") from error
        return cls.open(path)

    def snapshot(self, version: int | None = None, columns: list[str] | None = None) -> Snapshot:
        """The newest consistent view. Files already read by an earlier call are not read again.

        Args:
            version: of the ledger, if not the newest.
            columns: of `schema.VIDEOS`, where those of `_VECTORS_OF` at least will do; None: all.
        """
        ledger = self.ledger.snapshot(version, columns)
        rows = SegmentRows(self._keys.of(self.segments.files()), ledger.indexed)
        is_ours = ledger.generation == self.ledger.generation
        config = self.config if is_ours else self._config_of(ledger.generation)
        return Snapshot(config, ledger, rows, self.vectors_folder, self.keywords_folder)

    def state(self) -> tuple[object, ...]:
        """Versions of both tables and names of vector and keyword files: changes whenever a new snapshot would."""
        folders = (self.vectors_folder, self.keywords_folder)
        names = [tuple(sorted(path.name for path in folder.glob("*.json"))) for folder in folders]
        return (self.ledger.version(), open_delta(self.segments.folder).version(), *names)

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

    def build_vectors(
        self,
        *,
        anew: bool = False,
        if_due: bool = False,
        queries: np.ndarray | None = None,
        map_shards: MapShards | None = None,
    ) -> VectorManifest | None:
        """Writes a vector file for the newest ledger version: see `indexer.store.builds.build_vectors`."""
        return build_vectors(
            self._to_build_from(_VECTORS_OF),
            self.vectors_folder,
            anew=anew,
            if_due=if_due,
            queries=queries,
            map_shards=map_shards,
        )

    def build_keys(self, *, anew: bool = False) -> bool:
        """Writes a key file where opening the index without one would take longer, and whether it did.

        Args:
            anew: write it even where one seems to be there, and delete all others.
        """
        give_back_unused_memory()
        if anew:
            self._keys.forget()
        table = open_delta(self.segments.folder)
        return self._keys.build(data_files(table, self.segments.folder), table.version())

    def build_keywords(self) -> bool:
        """Writes a keyword file for the newest ledger version, and whether it did: not where one is whole, or empty."""
        return build_keywords(self._to_build_from(_KEYWORDS_OF), self.keywords_folder)

    def _to_build_from(self, columns: list[str]) -> Snapshot:
        """The newest view, without what was freed before and while it was read."""
        give_back_unused_memory()
        snapshot = self.snapshot(columns=columns)
        give_back_unused_memory()
        return snapshot


def _require_equal(store: IndexStore, config: IndexConfig) -> None:
    found = store.config
    is_same = found.model_fingerprint == config.model_fingerprint  # under whatever name: its folder may have moved
    for what, theirs, ours in [
        ("the model", found.model, found.model if is_same else config.model),
        ("weights of the model (fingerprint)", found.model_fingerprint[:12], config.model_fingerprint[:12]),
        ("the frame rate", found.sampling.frame_rate_hz, config.sampling.frame_rate_hz),
        ("the segment length", found.sampling.segment_length_s, config.sampling.segment_length_s),
        ("the sampling", found.sampling.mode, config.sampling.mode),
    ]:
        if theirs != ours:
            raise IndexSettingsError(
                f"the index at {str(store.path)!r} was made with another setting for {what}: {theirs!r}, now {ours!r}; "
                "use the same, index into a new folder, or (for another model) see `videobert refresh`"
            )
    if replace(found, model=config.model, frames_fingerprint=config.frames_fingerprint) != config:
        raise IndexSettingsError(
            f"the index at {str(store.path)!r} was made with other settings: index into a new folder"
        )


def _require_writable(path: Location) -> None:
    """Finds out before any work whether the folder takes files."""
    probe = path / f".write-test-{uuid.uuid4().hex}"
    try:
        write_whole(probe, b"")
        probe.unlink()
    except OSError as error:
        raise StorageError(f"the index at {str(path)!r} cannot be written: {error.strerror or error}") from error
