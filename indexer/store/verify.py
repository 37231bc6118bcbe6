"""Do the tables, the files, the vectors, the keywords and the keys of an index agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.errors import IndexDirectoryError
from indexer.storage import Location
from indexer.store.delta import open_delta, read_parquet_files, remedy
from indexer.store.index import IndexStore
from indexer.store.key_files import list_key_files, open_key_file
from indexer.store.keyword_files import list_keyword_manifests
from indexer.store.segment_keys import joined, read_keys
from indexer.store.snapshot import Snapshot
from indexer.store.vectors import list_manifests, open_vector_file

_NORM_TOLERANCE = 1e-3
_VECTORS_COMPARED = 256
# Videos that are named, of each problem.
_NAMED = 10


def verify(store: IndexStore) -> list[str]:
    """Checks an index from end to end. Nothing is changed.

    Returns:
        One line a problem; empty when all agree.
    """
    problems: list[str] = []
    try:
        problems += _file_problems(store)
        problems += _snapshot_problems(store.snapshot())
        problems += _vector_problems(store)
        problems += _keyword_problems(store)
        problems += _key_problems(store)
        problems += [
            f"the manifest {_shown(path)} cannot be read: rebuild it with `videobert verify --repair`"
            for path in _unread_manifests(store)
        ]
    except IndexDirectoryError as error:
        problems.append(str(error))
    return problems


def repair_vectors(store: IndexStore) -> bool:
    """Rebuilds the files of vectors, keywords and keys from the tables where they are missing, damaged or incomplete.

    Returns:
        Whether one was written.

    Raises:
        IndexFormatError: the tables themselves are damaged; `verify` names what is wrong with them.
        StorageError: the files could not be written.
    """
    unread = list(_unread_manifests(store))
    for path in unread:
        path.unlink(missing_ok=True)  # what it stood for goes with the next `compact`
    built = store.build_keys(anew=any(True for _ in _key_problems(store))) or bool(unread)
    built |= store.build_vectors(anew=any(True for _ in _vector_problems(store))) is not None
    return store.build_keywords() or built


def _file_problems(store: IndexStore) -> Iterator[str]:
    """Every committed file is there with the size that the log states."""
    for folder in (store.path / "videos", store.path / "segments"):
        actions = pa.table(open_delta(folder).get_add_actions(flatten=True)).select(["path", "size_bytes"])
        for action in actions.to_pylist():
            path = folder / action["path"]
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                yield f"the file {_shown(path)} is in the log but missing: {remedy(path)}"
                continue
            if size != action["size_bytes"]:
                expected = action["size_bytes"]
                yield f"the file {_shown(path)} has {size} bytes, the log says {expected}: {remedy(path)}"


def _snapshot_problems(snapshot: Snapshot) -> Iterator[str]:
    ids = snapshot.ledger.videos["video_id"].to_numpy()
    uris = snapshot.ledger.videos["uri"].to_pylist()
    for uri in [uri for uri, count in Counter(uris).items() if count > 1][:_NAMED]:
        yield f"the ledger names {uri!r} more than once: take it out with `videobert remove`, then index it again"
    for uri, video_id in zip(uris, ids.tolist(), strict=True):
        if schema.video_id(uri) != video_id:
            yield f"the ledger is damaged: the name {uri!r} does not belong to its id; restore it from a backup"
    segment_ids = snapshot.rows.segment_ids
    if len(np.unique(segment_ids)) != len(segment_ids):
        yield f"{len(segment_ids) - len(np.unique(segment_ids))} moments are there more than once"
    found = np.bincount(snapshot.rows.video_rows, minlength=snapshot.videos.num_rows)
    expected = snapshot.videos["num_segments"].to_numpy()
    for row in np.flatnonzero(found != expected)[:_NAMED]:
        uri = snapshot.videos["uri"][int(row)].as_py()
        yield (
            f"the video {uri!r} has {found[row]} moments, the ledger says {expected[row]}: "
            "take it out with `videobert verify --repair`, then index it again"
        )
    feature_bytes = 2 * int(np.prod(snapshot.config.feature_shape))
    visible = {number: file_rows for number, _, file_rows in snapshot.rows.by_file()}
    for number, file in enumerate(snapshot.rows.files):
        try:
            table = read_parquet_files([file], schema.SEGMENTS)  # also the columns that no search would read
        except IndexDirectoryError as error:
            yield str(error)
            continue
        if number in visible:
            shown = table.take(pa.array(visible[number]))
            yield from _row_problems(shown, snapshot.config.embedding_dim, feature_bytes)


def _row_problems(table: pa.Table, dim: int, feature_bytes: int) -> Iterator[str]:
    lengths = pc.list_value_length(table["embedding"])
    if not pc.all(pc.equal(lengths, dim)).as_py():
        yield f"some embeddings do not have {dim} numbers"
        return
    vectors = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    off = int((np.abs(np.linalg.norm(vectors, axis=1) - 1) > _NORM_TOLERANCE).sum())
    if off:
        yield f"{off} embeddings do not have length 1"
    sizes = pc.binary_length(table["frame_features"]).to_numpy()
    if (sizes != feature_bytes * table["num_frames"].to_numpy()).any():
        yield "some frame features do not have the size that their number of frames asks for"


def _vector_problems(store: IndexStore) -> Iterator[str]:
    """The newest vector file is whole, and its vectors are those of the table."""
    snapshot = store.snapshot()
    manifests = list(list_manifests(store.vectors_folder))
    if snapshot.num_segments and not manifests:
        yield "there is no vector file: build it with `videobert verify --repair` (search works, more slowly)"
    for manifest in manifests[:1]:
        try:
            file = open_vector_file(store.vectors_folder, manifest, read_all=True)
        except IndexDirectoryError as error:
            yield f"{error}: rebuild it with `videobert verify --repair`"
            continue
        rows = snapshot.rows.find(file.segment_ids, file.batch_ids)
        covered = np.flatnonzero(rows >= 0)
        covered = covered[:: max(1, len(covered) // _VECTORS_COMPARED)]
        if not np.allclose(file.vectors[covered], snapshot.embeddings(rows[covered]), atol=1e-5):
            yield (
                f"the vector file {manifest.name} holds other vectors than the table: "
                "rebuild it with `videobert verify --repair`"
            )


def _keyword_problems(store: IndexStore) -> Iterator[str]:
    """The newest keyword file is whole. Indexes of earlier versions have none, and need none."""
    for problem in store.snapshot().keyword_coverage.damaged:
        yield f"{problem}: rebuild it with `videobert verify --repair`"


def _unread_manifests(store: IndexStore) -> Iterator[Location]:
    """Manifests of vectors and keywords that a search passes over, because they are damaged or of another version."""
    for folder, pattern, listed in (
        (store.vectors_folder, "v*.json", list_manifests),
        (store.keywords_folder, "k*.json", list_keyword_manifests),
    ):
        read = {manifest.name for manifest in listed(folder)}
        yield from (path for path in folder.glob(pattern) if path.name.removesuffix(".json") not in read)


def _key_problems(store: IndexStore) -> Iterator[str]:
    """Every key file is whole, and says of each segment file what that says itself."""
    there = set(store.segments.files())
    for path in list_key_files(store.keys_folder):
        try:
            keys = open_key_file(path, store.segments.folder, read_all=True)
        except IndexDirectoryError as error:
            yield f"{error}: rebuild it with `videobert verify --repair`"
            continue
        told = keys.only(there)
        if told.files and not told.equals(joined(read_keys(told.files))):
            yield (
                f"the key file {path.name} says other things than the segment files: "
                "rebuild it with `videobert verify --repair`"
            )


def _shown(path: Location) -> str:
    return repr(str(path))
