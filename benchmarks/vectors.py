"""What vector search costs in a large collection, beside exact FAISS and LanceDB on the same vectors.

    python -m benchmarks.vectors                                  # a million moments
    python -m benchmarks.vectors --rows 100000 --lancedb ""       # fewer, without LanceDB
    python -m benchmarks.vectors --lancedb OTHER_VENV/bin/python

The index is a real one: Parquet files, ledger, vector file, opened and searched by the code of the product, but no
text encoder. Its vectors are made up (see benchmarks.moment_vectors). Building uses all cores; a search is one query
on one core in a process of its own. LanceDB runs in the Python that is named, or in this one if it is installed here
(`pip install 'videobert-search[bench]'`). Times are those of the processor; those by the clock depend on what else runs
on the machine. A recall@10 below 0.95, a median of 10 ms or a 99th percentile of 40 ms make the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency import in_one_core, latencies, memory, recall, settled_memory
from benchmarks.moment_vectors import MOMENTS_PER_VIDEO, Collection
from benchmarks.report import report
from benchmarks.vectors_index import DIM, add_videos, config
from benchmarks.vectors_lancedb import KINDS
from indexer.store.ann import nearest
from indexer.store.index import IndexStore
from indexer.store.snapshot import Snapshot
from indexer.store.vectors import FLAT, list_manifests

_K = 10
_NUM_QUERIES, _NUM_CASE_QUERIES, _NUM_TUNING = 500, 200, 280
_ROWS_PER_FILE = 48_000
_LEAST_RECALL, _MOST_P50_MS, _MOST_P99_MS = 0.95, 10.0, 40.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="moments")
    has_lancedb = importlib.util.find_spec("lancedb") is not None
    parser.add_argument(
        "--lancedb", default=sys.executable if has_lancedb else "", help='Python with LanceDB; "": none'
    )
    parser.add_argument(
        "--lancedb-kinds", nargs="+", choices=KINDS, default=list(KINDS), help="IVF_PQ takes by far the longest"
    )
    parser.add_argument("--scratch", help="folder to work in; one for temporary files if not given")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, folder = arguments.measure
        print(json.dumps({"ours": measure_ours, "faiss": measure_faiss}[what](Path(folder))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        figures, ours = run(Path(scratch), arguments.rows, arguments.lancedb, arguments.lancedb_kinds)
    report("vectors", figures)
    is_fast = ours["cpu_p50_ms"] < _MOST_P50_MS and ours["cpu_p99_ms"] < _MOST_P99_MS
    sys.exit(0 if is_fast and ours["recall"] >= _LEAST_RECALL else 1)


def run(folder: Path, num_rows: int, lancedb: str, kinds: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The table to print, and the figures of the plain search."""
    built = build(folder, num_rows)
    results = {"videobert": measure(sys.executable, "benchmarks.vectors", "--measure", "ours", str(folder))}
    built |= build_again(folder, num_rows)
    faiss = measure(sys.executable, "benchmarks.vectors", "--measure", "faiss", str(folder))
    figures: dict[str, Any] = {"moments": f"{num_rows:,} of {DIM} numbers"} | built
    figures |= results["videobert"]["figures"]
    for name, cost in results["videobert"]["costs"].items():
        figures[f"search, {name}"] = _shown(cost)
    figures["exact FAISS (IndexFlatIP)"] = _shown(faiss)
    for kind in kinds if lancedb else ():
        report("vectors", figures)  # what is known so far: LanceDB takes longest
        cost = measure(lancedb, "benchmarks.vectors_lancedb", str(folder), kind)
        figures[f"LanceDB {cost.pop('version')} {kind}"] = _shown(cost)
    return figures, results["videobert"]["costs"]["all moments"]


def _shown(cost: dict[str, float]) -> str:
    text = f"recall@10 {cost['recall']:.3f}, p50 {cost['cpu_p50_ms']:.2f} ms, p99 {cost['cpu_p99_ms']:.2f} ms"
    text += f" (by the clock {cost['p50_ms']:.2f} and {cost['p99_ms']:.2f})"
    if "build_s" in cost:
        text += f", built in {cost['build_s']:.0f} s, opened in {cost['open_s']:.2f} s"
    if "memory" in cost:
        text += f", {cost['memory']}"
    return text + (f" ({cost['note']})" if cost.get("note") else "")


def measure(python: str, module: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own prints as JSON in its last line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, "-m", module, *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def build(folder: Path, num_rows: int) -> dict[str, Any]:
    """Writes the index, its vectors as an array, the queries, and the true neighbours."""
    collection = Collection(num_rows)
    np.save(folder / "queries.npy", collection.texts(_NUM_QUERIES, seed=1))
    store = IndexStore.open_or_create(folder / "index", config())
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (num_rows, DIM))
    for number, part in enumerate(collection.parts(_ROWS_PER_FILE)):
        vectors[number * _ROWS_PER_FILE :][: len(part)] = part
        add_videos(store, part, f"batch-{number}")
    vectors.flush()
    add_videos(IndexStore.open_or_create(folder / "tiny", config()), vectors[:MOMENTS_PER_VIDEO], "batch")
    started, cpu_started = time.perf_counter(), time.process_time()
    manifest = store.build_vectors(queries=collection.texts(_NUM_TUNING, seed=2))
    build_s, build_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    assert manifest is not None
    key_file = _seconds(_timed(store.build_keys))
    keys_size = sum(path.stat().st_size for path in store.keys_folder.glob("*")) / num_rows
    sizes = sum(path.stat().st_size for path in store.vectors_folder.iterdir()) / num_rows
    return {
        "kind": f"{manifest.kind}, nprobe {manifest.nprobe} of {manifest.num_lists} lists",
        "build": f"{build_s:.0f} s ({build_cpu_s:.0f} s of processors) on {len(os.sched_getaffinity(0))} cores, "
        "tables read, tuned and measured",
        "bytes a vector": f"{manifest.bytes_per_vector:.1f} searched, {sizes:,.0f} on disk",
        "recall@10 of the manifest": manifest.recall_at_10,
        "key file": f"{keys_size:.1f} bytes a moment, made in {key_file}",
    }


def build_again(folder: Path, num_rows: int) -> dict[str, Any]:
    """A new vector file for what has been removed and added since, as a run or `compact` writes it."""
    store = IndexStore.open(folder / "index")
    texts = Collection(num_rows).texts(_NUM_TUNING, seed=2)
    trained_on = next(list_manifests(store.vectors_folder)).num_vectors
    started, cpu_started = time.perf_counter(), time.process_time()
    manifest = store.build_vectors(queries=texts)
    build_s, build_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    assert manifest is not None
    lists = "the lists of before" if manifest.trained_on == trained_on else "lists learnt anew"
    lists = "no lists" if manifest.kind == FLAT else lists
    return {
        "build after 1 % left and 5 % came": f"{build_s:.0f} s ({build_cpu_s:.0f} s of processors) with {lists}, "
        f"nprobe {manifest.nprobe}, recall@10 {manifest.recall_at_10}"
    }


def measure_ours(folder: Path) -> dict[str, Any]:
    """Searches the index as it is, filtered, after a removal, and after more was added."""
    in_one_core()
    queries = np.load(folder / "queries.npy")
    _open(folder / "tiny")  # loads what any index needs
    before = settled_memory()
    first = _timed(lambda: _open(folder / "index"))
    store = IndexStore.open(folder / "index")
    snapshot = store.snapshot()
    latencies(lambda query: snapshot.search(query[None], _K)[1][0], queries)
    own, mapped = (after - then for after, then in zip(settled_memory(), before, strict=True))
    again = min(_timed(lambda: _open(folder / "index")) for _ in range(3))
    without_keys = _timed_without_keys(folder / "index")
    figures = {
        "open": f"{_seconds(again)}, {_seconds(first)} the first time",
        "open without the key file": _seconds(without_keys),
        "memory of its own": f"{own / len(snapshot.rows):.0f} bytes a moment ({own / 1e6:.0f} MB, beside "
        f"{before[0] / 1e6:.0f} MB that any index takes), and {mapped / 1e6:.0f} MB of mapped files",
    }
    vectors = snapshot.embeddings()
    costs = {"all moments": cost(snapshot, vectors, queries)} | _filtered(
        snapshot, vectors, queries[:_NUM_CASE_QUERIES]
    )
    del vectors
    store.ledger.remove(snapshot.videos["video_id"].to_numpy()[::100].tolist())
    costs["1 % tombstones"] = cost_now(store, queries[:_NUM_CASE_QUERIES])
    for part in Collection(len(snapshot.rows) // 20, seed=1).parts(_ROWS_PER_FILE):
        add_videos(store, part, f"later-{len(part)}")
    costs["1 % tombstones and 5 % uncovered"] = cost_now(store, queries[:_NUM_CASE_QUERIES])
    return {"figures": figures, "costs": costs}


def _filtered(snapshot: Snapshot, vectors: np.ndarray, queries: np.ndarray) -> dict[str, dict[str, float]]:
    """Filters that know nothing of the query, and one that keeps what lies elsewhere."""
    costs = {}
    of_video = np.random.default_rng(3).random(len(snapshot.videos))
    for share in (0.1, 0.01, 0.0001):
        chosen = of_video <= max(share, of_video.min())
        allowed = chosen[snapshot.rows.video_rows]
        costs[f"a filter that keeps {100 * share:g} %"] = cost(snapshot, vectors, queries, allowed)
    likeness = vectors @ queries[np.argmin(queries @ queries[0])]
    elsewhere = likeness >= np.quantile(likeness, 0.95)
    name = "a filter that keeps the 5 % most like another text"
    costs[name] = cost(snapshot, vectors, queries[:1].repeat(20, 0), elsewhere)
    return costs


def cost_now(store: IndexStore, queries: np.ndarray) -> dict[str, float]:
    """As `cost`, of the newest version."""
    snapshot = store.snapshot()
    return cost(snapshot, snapshot.embeddings(), queries)


def cost(
    snapshot: Snapshot, vectors: np.ndarray, queries: np.ndarray, allowed: np.ndarray | None = None
) -> dict[str, float]:
    """Recall against all visible moments that are allowed, compared one by one, and time a query.

    Args:
        snapshot: what is searched.
        vectors: its vectors, all of them.
        queries: float32 [Q, dim].
        allowed: bool [N], a filter.
    """
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    wanted = rows[nearest(queries, vectors if allowed is None else vectors[rows], _K)[1]]
    found, times = latencies(lambda query: snapshot.search(query[None], _K, allowed)[1][0], queries)
    return {"recall": recall(found, wanted), **times}


def _open(path: Path) -> None:
    """As far as the first search needs it."""
    assert IndexStore.open(path).snapshot().coverage.covered >= 0


def _timed_without_keys(path: Path) -> tuple[float, float]:
    """Opening an index that has no key file, or only one of another format."""
    for file in (path / "keys").glob("k1-*"):
        file.rename(file.with_name(f"off-{file.name}"))
    times = min(_timed(lambda: _open(path)) for _ in range(2))
    for file in (path / "keys").glob("off-*"):
        file.rename(file.with_name(file.name.removeprefix("off-")))
    return times


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processors."""
    started, cpu_started = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - started, time.process_time() - cpu_started


def _seconds(times: tuple[float, float]) -> str:
    return f"{times[0]:.2f} s ({times[1]:.2f} s of processors)"


def measure_faiss(folder: Path) -> dict[str, Any]:
    """Plain FAISS without an index: all vectors in memory, all compared."""
    import faiss

    in_one_core()
    vectors = np.load(folder / "vectors.npy")
    started = time.perf_counter()
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    build_s = time.perf_counter() - started
    del vectors
    queries = np.load(folder / "queries.npy")
    wanted = index.search(queries, _K)[1]
    np.save(folder / "neighbours.npy", wanted)
    found, times = latencies(lambda query: index.search(query[None], _K)[1][0], queries[:50])
    return {
        "recall": recall(found, wanted),
        **times,
        "memory": f"{memory()[0] / 1e6:.0f} MB",
        "build_s": build_s,
        "open_s": 0.0,
    }


if __name__ == "__main__":
    main()
