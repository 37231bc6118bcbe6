"""LanceDB on the vectors of benchmarks.vectors, which runs this in a process, and perhaps a Python, of its own.

    python -m benchmarks.vectors_lancedb FOLDER IVF_RQ     # FOLDER: vectors.npy, queries.npy, neighbours.npy

Its indexes are built as its documentation advises: its own number of lists, and vectors ranked again
(`refine_factor`). How many lists are looked into, and how many vectors are ranked again, is tuned to the same recall
as ours with some of the queries; others are measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.latency import in_one_core, latencies, memory, recall

_K, _RECALL = 10, 0.97
_REFINE = (10, 20, 50)
_ROWS_PER_LIST = 8192  # its default
_ROWS_PER_BATCH = 50_000
# Its indexes, with their settings.
KINDS: dict[str, dict[str, int]] = {"IVF_RQ": {}, "IVF_PQ": {"num_sub_vectors": 48}}


def main() -> None:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    path = os.fspath(folder / f"lancedb-{kind}")
    if "--search" in sys.argv:
        print(json.dumps(_search(folder, path)))
    else:  # searched in a process of its own, that its memory is its own
        print(json.dumps({"build_s": _build(folder, path, kind, KINDS[kind])} | _again(folder, kind)))


def _again(folder: Path, kind: str) -> dict[str, Any]:
    import subprocess

    command = [sys.executable, "-m", "benchmarks.vectors_lancedb", str(folder), kind, "--search"]
    figures: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures | {"version": version("lancedb")}


def _build(folder: Path, path: str, kind: str, settings: dict[str, int]) -> float:
    import lancedb
    from lancedb.index import IvfPq, IvfRq

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    schema = pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), vectors.shape[1])})

    def batches() -> Any:
        for start in range(0, len(vectors), _ROWS_PER_BATCH):
            part = np.ascontiguousarray(vectors[start : start + _ROWS_PER_BATCH])
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), vectors.shape[1])
            ids = pa.array(np.arange(start, start + len(part)))
            yield pa.record_batch([ids, column], schema=schema)

    table = lancedb.connect(path).create_table("moments", batches(), schema=schema)
    started = time.perf_counter()
    table.create_index("vector", config={"IVF_RQ": IvfRq, "IVF_PQ": IvfPq}[kind](distance_type="dot", **settings))
    return time.perf_counter() - started


def _search(folder: Path, path: str) -> dict[str, Any]:
    import lancedb

    in_one_core()
    queries, wanted = np.load(folder / "queries.npy"), np.load(folder / "neighbours.npy")
    before, _ = memory()
    started = time.perf_counter()
    table = lancedb.connect(path).open_table("moments")
    _finder(table, 1, 1)(queries[0])
    open_s = time.perf_counter() - started
    nprobes, refine = _tuned(table, queries[:200:2], wanted[:200:2])
    found, times = latencies(_finder(table, nprobes, refine), queries[1::2])
    own = (memory()[0] - before) / 1e6
    note = f"nprobes {nprobes}, refine_factor {refine}"
    return {"recall": recall(found, wanted[1::2]), **times, "open_s": open_s, "memory": f"{own:.0f} MB", "note": note}


def _tuned(table: Any, queries: np.ndarray, wanted: np.ndarray) -> tuple[int, int]:
    """The fewest lists, and then the fewest candidates, that reach the recall; else the most."""
    most = 2 * table.count_rows() // _ROWS_PER_LIST + 1
    for refine in _REFINE:
        nprobes = 4
        while nprobes < most:
            if recall([_finder(table, nprobes, refine)(query) for query in queries], wanted) >= _RECALL:
                return nprobes, refine
            nprobes += -(-nprobes // 4)
    return most, refine


def _finder(table: Any, nprobes: int, refine: int) -> Callable[[np.ndarray], np.ndarray]:
    def find(query: np.ndarray) -> np.ndarray:
        search = table.search(query).distance_type("dot").nprobes(nprobes).refine_factor(refine).limit(_K)
        return search.select(["id"]).to_arrow()["id"].to_numpy()

    return find


if __name__ == "__main__":
    main()
