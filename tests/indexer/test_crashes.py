"""An indexer killed with SIGKILL, at chosen points and at any time: the next run ends as if nothing had happened.

The indexer runs as a process of its own. It kills its whole process group at the n-th call of a function, before or
after the real call, so that each state the disk can be in is met exactly. On Ray also one worker kills itself so, or
one of two nodes dies; these the run itself survives.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer import schema
from indexer.config import RunConfig, SamplingConfig
from indexer.ingest import encode
from indexer.pipeline import RunSummary, index_videos, retry_videos
from indexer.refresh import refresh_index
from indexer.store import vectors
from indexer.store.compact import compact
from indexer.store.delta import data_files, open_delta
from indexer.store.index import IndexStore
from indexer.store.keyword_files import list_keyword_manifests
from indexer.store.vectors import list_manifests
from indexer.store.verify import verify
from model.checkpoint import save_checkpoint
from model.config import preset
from model.weights import pretrained_model

ROOT = Path(__file__).parents[2]
SEED = 20

DRIVER = """
import importlib, inspect, os, signal, sys, time

def kill_at(where, when, nth, die):
    calls = 0
    module, _, names = where.partition(":")
    owner = importlib.import_module(module)
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if (calls, when) == (nth, "before"):
            die()
        result = real(*args, **kwargs)
        if (calls, when) == (nth, "after"):
            die()
        return result

    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(deadly) if is_static else deadly)

def die_with_all():
    os.killpg(0, signal.SIGKILL)

verb, videos, index, where, when, nth, once = sys.argv[1:]

def die_once():
    try:
        open(once, "x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def die_over(name):
    from indexer.batches import BatchEncoder
    real = BatchEncoder._begin

    def encode(self, item, *rest):
        if item.file.uri.endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, item, *rest)

    BatchEncoder._begin = encode

def start_two_nodes():
    from ray.cluster_utils import Cluster
    size = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    node = cluster.add_node(**size)

    def kill_node():
        open(once, "x").close()
        time.sleep(float(when))
        node.kill_raylet()

    kill_at(where, "after", int(nth), kill_node)
    return cluster.address

def cut_into_small_parts():
    from indexer import parts
    from indexer.ingest import encode
    encode.MOMENTS_AT_ONCE = parts.MOMENTS_AT_ONCE = parts._MIN_PART_BYTES = 1

def encode_parts_here():
    from indexer import parts, pipeline
    real = pipeline.encode_in_threads
    cut = parts.cut_long_videos
    pipeline.encode_in_threads = lambda items, settings, *_: real(cut(items, 2, settings), settings, 1)

from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.store import vectors
from indexer.store.compact import compact
from indexer.store.index import IndexStore
address = None
if verb.startswith("parts"):
    cut_into_small_parts()
    encode_parts_here()
if verb in ("actor", "parts-actor", "poison"):
    from indexer import ray_encoding

    class EncodingWorker(ray_encoding.EncodingWorker):
        def __init__(self, *arguments):
            cut_into_small_parts() if verb == "parts-actor" else None
            die_over(where) if verb == "poison" else kill_at(where, when, int(nth), die_once)
            super().__init__(*arguments)

    ray_encoding.EncodingWorker = EncodingWorker
elif verb == "node":
    address = start_two_nodes()
elif where:
    kill_at(where, when, int(nth), die_with_all)
if verb == "ivf":
    vectors.FLAT_UP_TO_BYTES = 0
print("ready", flush=True)
if verb == "compact":
    compact(IndexStore.open(index), older_than_hours=0)
elif verb == "refresh":
    from indexer.refresh import refresh_index
    refresh_index(index, model=videos)
else:
    on_ray = verb in ("ray", "actor", "parts-actor", "poison", "node")
    workers = 1 if verb == "ray" else None
    run = RunConfig(prune=True, commit_interval_s=0.001, num_workers=workers, address=address)
    index_videos([videos], index, model="tiny_test", sampling=SamplingConfig(), run=run, in_process=not on_ray)
"""


class Kill(NamedTuple):
    """Which process dies where.

    verb: "fresh" makes an index, "ivf" one with a vector file as large collections have it, "parts" one of long videos
        in parts; "update" brings an older one up to date, "compact" compacts, "refresh" puts another model over it;
        "ray", "actor" and "node" make one on Ray, where the driver, one worker or one of two nodes dies, "parts-actor"
        likewise in parts; "poison": each worker at one video.
    where, when, nth: before or after the n-th call of a function; for a node, so many seconds after it.
    """

    verb: str
    where: str
    when: str = "after"
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.verb}-{self.when}-{self.where.rpartition(':')[2]}-{self.nth}"


SEGMENT_FILE = "indexer.batches:write_segment_file"
PARQUET = "indexer.store.segments_table:pq.write_table"
SEGMENTS_COMMIT = "indexer.store.segments_table:SegmentsTable.add"
LEDGER_COMMIT = "indexer.store.ledger:Ledger.commit"
# Of a small collection the first two are parts of its vector file, the others of its keyword file.
PART = "indexer.store.file_set:_checksum"
VECTOR_MANIFEST = "indexer.store.vector_writer:write_whole"
TUNING = "indexer.store.vector_writer:_Tuning.of"
KEYWORD_MANIFEST = "indexer.store.keyword_files:write_whole"


def around(verb: str, where: str, times: int = 1) -> list[Kill]:
    return [Kill(verb, where, when, n + 1) for n in range(times) for when in ("before", "after")]


# Half of a file (PARQUET), a file that no table names (SEGMENT_FILE), moments without a video (SEGMENTS_COMMIT after,
# LEDGER_COMMIT before), part of a vector file (PART), part of a new index, of a compaction, ...
POINTS = [
    *around("fresh", "indexer.store.ledger:Ledger.create"),
    *around("fresh", "indexer.store.segments_table:SegmentsTable.create"),
    *around("fresh", "indexer.store.index:create_whole"),
    *around("fresh", SEGMENT_FILE, 3),
    *(Kill("fresh", PARQUET, nth=n) for n in (1, 2, 3)),
    *around("fresh", "indexer.store.index:IndexStore.commit", 3),
    *around("fresh", SEGMENTS_COMMIT, 3),
    *around("fresh", LEDGER_COMMIT, 3),
    *around("fresh", "indexer.store.builds:build_vector_file"),
    *(Kill("fresh", PART, nth=n) for n in (1, 2)),
    *around("fresh", VECTOR_MANIFEST),
    *around("update", "indexer.store.ledger:Ledger.remove"),
    *around("update", SEGMENT_FILE, 2),
    *(Kill("update", PARQUET, nth=n) for n in (1, 2)),
    *around("update", SEGMENTS_COMMIT, 3),
    *around("update", LEDGER_COMMIT, 3),
    *around("update", "indexer.store.ledger:Ledger._commit_once", 3),
    *around("update", "indexer.store.builds:build_vector_file"),
    *(Kill("update", PART, nth=n) for n in (1, 2)),
    *around("update", VECTOR_MANIFEST),
    *around("compact", "indexer.store.compact:_merge"),
    *around("compact", "indexer.store.compact:_commit"),
    *around("compact", "indexer.store.compact:_merge_ledger_files"),
    *around("compact", "indexer.store.compact:delete_unneeded"),
]
ACTOR_POINTS = [
    *around("actor", "indexer.batches:BatchEncoder.encode", 2),
    *around("actor", "indexer.batches:BatchEncoder._begin", 2),
    *around("actor", SEGMENT_FILE, 2),
    *(Kill("actor", PARQUET, nth=n) for n in (1, 2)),
]
# Half of a large vector file (PART after 1: codes without vectors), one that is not tuned, half a keyword file.
BUILDING_POINTS = [
    *around("ivf", "indexer.store.vector_writer:_write_npy"),
    *around("ivf", TUNING),
    *(Kill("ivf", PART, nth=n) for n in (1, 2, 3)),
    *around("ivf", VECTOR_MANIFEST),
    *around("fresh", "indexer.store.keyword_files:insert"),
    *(Kill("fresh", PART, nth=n) for n in (3, 4)),
    *around("fresh", KEYWORD_MANIFEST),
    Kill("update", "indexer.store.builds:delete_other_keywords", "before"),
]
# Between the parts of a video, while they are joined, when all of it is to be committed.
PART_POINTS = [
    *(Kill("parts", "indexer.batches:BatchEncoder.encode", nth=n) for n in (1, 2, 3)),
    *around("parts", "indexer.parts:_joined", 2),
    *around("parts", LEDGER_COMMIT),
]
REFRESH_POINTS = [
    Kill("refresh", "indexer.store.index:IndexStore.add_settings"),
    *around("refresh", SEGMENTS_COMMIT),
    *around("refresh", "indexer.store.ledger:Ledger.switch"),
    Kill("refresh", PART, nth=2),
    Kill("refresh", PART, nth=3),
]
QUICK = [
    Kill("fresh", "indexer.store.ledger:Ledger.create"),
    Kill("fresh", PARQUET, nth=2),
    Kill("update", LEDGER_COMMIT, "before", 2),
    Kill("update", PART, nth=2),
    Kill("ivf", TUNING, "before"),
]
SLOW = random.Random(SEED).sample([point for point in POINTS if point not in QUICK], 30)
ACTORS = random.Random(SEED).sample(ACTOR_POINTS, 7)
_drawn = random.Random(SEED)
NODES = [
    Kill("node", "indexer.recorder:Recorder._count", f"{_drawn.uniform(0, 1):.2f}", _drawn.randint(1, 4))
    for _ in range(4)
]


def bring_up_to_date(videos: Path, index: Path) -> RunSummary:
    return index_videos(
        [str(videos)],
        index,
        model="tiny_test",
        sampling=SamplingConfig(),
        run=RunConfig(prune=True),
        in_process=True,
    )


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, make_videos: Any) -> SimpleNamespace:
    """A folder of six videos, an index of its earlier state, and an index that nothing disturbed."""
    folder = tmp_path_factory.mktemp("crashes")
    videos = folder / "videos"
    videos.mkdir()
    synthetic = make_videos(folder)
    for i in range(6):
        synthetic.write(f"videos/v{i}.mp4", range(0, 2_000 * (i + 1), 100))
    bring_up_to_date(videos, folder / "earlier")
    synthetic.write("videos/v0.mp4", range(0, 11_000, 100))
    os.utime(videos / "v1.mp4", ns=(10**18, 10**18))
    (videos / "v2.mp4").unlink()
    (videos / "v3.mp4").rename(videos / "v6.mp4")
    (videos / "v5.mp4").write_text("no longer a video")
    synthetic.write("videos/v7.mp4", range(0, 15_000, 100))
    summary = bring_up_to_date(videos, folder / "undisturbed")
    assert (summary.indexed, summary.failed) == (5, 1)
    return SimpleNamespace(videos=videos, earlier=folder / "earlier", undisturbed=folder / "undisturbed")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def start(kill: Kill, videos: Path, index: Path, **environment: str) -> subprocess.Popen[str]:
    arguments = [kill.verb, str(videos), str(index), kill.where, kill.when, str(kill.nth), f"{index}.killed"]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def visible(index: Path) -> list[dict[str, Any]]:
    """Every visible row with all that does not tell of the run that made it."""
    snapshot = IndexStore.open(index).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    return sorted(({**row, "batch_id": ""} for row in rows), key=lambda row: (row["video_id"], row["start_s"]))


def ledger(index: Path) -> list[dict[str, Any]]:
    """Every row without what tells of the run; parts of a video decode some frames twice."""
    rows = IndexStore.open(index).ledger.snapshot().videos.sort_by("uri").to_pylist()
    cost = dict.fromkeys(("indexed_at", "sampling_plan", "num_coded", "num_decoded"))
    return [{**row, "batch_id": "", **cost} for row in rows]


def assert_as_if_nothing_had_happened(collection: SimpleNamespace, index: Path) -> None:
    """Goes on from a crash, undisturbed, and compares."""
    bring_up_to_date(collection.videos, index)
    expected = visible(collection.undisturbed)
    assert visible(index) == expected
    assert ledger(index) == ledger(collection.undisturbed)
    assert verify(IndexStore.open(index)) == []
    compact(IndexStore.open(index), older_than_hours=0)
    assert visible(index) == expected
    assert verify(IndexStore.open(index)) == []
    assert_nothing_left_over(index)


def assert_nothing_left_over(index: Path) -> None:
    """No row but the visible ones, no file but those that the tables and the vectors name."""
    store = IndexStore.open(index)
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in store.segments.files()) == len(visible(index))
    for folder in (index / "segments", index / "videos"):
        on_disk = {str(path) for path in folder.iterdir() if path.is_file()}
        assert on_disk == set(data_files(open_delta(folder), folder))
    for folder, manifests in (("vectors", list_manifests), ("keywords", list_keyword_manifests)):
        listed = list(manifests(index / folder))
        named = {f"{manifest.name}{suffix}" for manifest in listed for suffix in (".json", *manifest.sha256)}
        assert {path.name for path in (index / folder).iterdir()} == named
    assert {path.name for path in index.iterdir()} == {"index.json", "keywords", "segments", "vectors", "videos"}


def run_and_die(kill: Kill, collection: SimpleNamespace, index: Path) -> None:
    if kill.verb in ("update", "compact"):
        shutil.copytree(collection.earlier, index)
    if kill.verb == "compact":
        bring_up_to_date(collection.videos, index)
    process = start(kill, collection.videos, index)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{kill} was never reached"


@pytest.mark.parametrize("kill", QUICK, ids=str)
def test_killed_run_leaves_no_trace_after_the_next(kill: Kill, collection: SimpleNamespace, index: Path) -> None:
    run_and_die(kill, collection, index)
    assert_as_if_nothing_had_happened(collection, index)


@pytest.mark.slow
@pytest.mark.parametrize("kill", SLOW, ids=str)
def test_killed_run_leaves_no_trace_after_the_next_at_many_points(
    kill: Kill, collection: SimpleNamespace, index: Path
) -> None:
    run_and_die(kill, collection, index)
    assert_as_if_nothing_had_happened(collection, index)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [point for point in BUILDING_POINTS if point not in QUICK], ids=str)
def test_run_killed_over_vectors_or_keywords_leaves_no_trace_after_the_next(
    kill: Kill, collection: SimpleNamespace, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_die(kill, collection, index)
    if kill.verb == "ivf":
        monkeypatch.setattr(vectors, "FLAT_UP_TO_BYTES", 0)
    assert_as_if_nothing_had_happened(collection, index)
    kind = IndexStore.open(index).snapshot().coverage.kind
    assert kind == (vectors.IVF if kill.verb == "ivf" else vectors.FLAT)


@pytest.fixture
def in_parts(collection: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same videos, and an index of them made with groups of one moment, as their parts are."""
    monkeypatch.setattr(encode, "MOMENTS_AT_ONCE", 1)
    bring_up_to_date(collection.videos, tmp_path / "whole")
    return SimpleNamespace(videos=collection.videos, undisturbed=tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kill", PART_POINTS, ids=str)
def test_run_killed_over_parts_of_a_video_leaves_no_trace_after_the_next(
    kill: Kill, in_parts: SimpleNamespace, index: Path
) -> None:
    run_and_die(kill, in_parts, index)
    assert_as_if_nothing_had_happened(in_parts, index)


@pytest.mark.slow
@pytest.mark.parametrize("kill", REFRESH_POINTS, ids=str)
def test_refresh_that_is_killed_leaves_no_trace_after_the_next(
    kill: Kill, collection: SimpleNamespace, index: Path, tmp_path: Path
) -> None:
    model = str(tmp_path / "other.safetensors")
    config = replace(preset("tiny_test"), trained=("gate",))
    other = pretrained_model(config, {})
    other.gate.data.fill_(0.5)
    save_checkpoint(other, config, {}, Path(model))
    shutil.copytree(collection.undisturbed, index)
    shutil.copytree(collection.undisturbed, tmp_path / "refreshed")
    refresh_index(tmp_path / "refreshed", model=model)
    process = start(kill, Path(model), index)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{kill} was never reached"
    assert_near(visible(index), visible(tmp_path / "refreshed"), visible(collection.undisturbed))
    refresh_index(index, model=model)
    assert_near(visible(index), visible(tmp_path / "refreshed"))
    assert ledger(index) == ledger(tmp_path / "refreshed")
    compact(IndexStore.open(index), older_than_hours=0)
    assert_near(visible(index), visible(tmp_path / "refreshed"))
    assert verify(IndexStore.open(index)) == []


def assert_near(rows: list[dict[str, Any]], *allowed: list[dict[str, Any]]) -> None:
    """The rows are those of one of several indexes: vectors and scores within the tolerance of arithmetic."""

    def split(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], np.ndarray]:
        numbers = [[*row["embedding"], *(label["score"] for label in row["labels"])] for row in found]
        names = [[label["label"] for label in row["labels"]] for row in found]
        same = [{**row, "embedding": None, "labels": kept} for row, kept in zip(found, names, strict=True)]
        return same, np.array([number for row in numbers for number in row])

    same, numbers = split(rows)
    candidates = [split(other) for other in allowed]
    assert any(same == s and np.allclose(numbers, n, atol=1e-5) for s, n in candidates)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_run_killed_at_any_time_leaves_no_trace_after_the_next(
    seed: int, collection: SimpleNamespace, index: Path
) -> None:
    """Killed again and again, until it gets through; so a crash during the recovery from a crash is met too."""
    drawn = random.Random(seed)
    if seed % 2:
        shutil.copytree(collection.earlier, index)
    for _ in range(2):
        process = start(Kill("update", ""), collection.videos, index)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(drawn.uniform(0, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
    assert_as_if_nothing_had_happened(collection, index)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_run_on_ray_killed_at_a_commit_leaves_no_trace_after_the_next(
    when: str, collection: SimpleNamespace, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """ "before" is between the commit of the moments and the commit of their videos."""
    ray_folder = tmp_path_factory.mktemp("r")
    process = start(
        Kill("ray", LEDGER_COMMIT, when, 2),
        collection.videos,
        index,
        RAY_TMPDIR=str(ray_folder),
        RAY_AUTH_MODE="disabled",
    )
    try:
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL
        assert len(visible(index)) < len(visible(collection.undisturbed)), "it was killed on its way"
        assert_as_if_nothing_had_happened(collection, index)
    finally:
        end_processes_of(ray_folder)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kill", [*ACTORS, *NODES], ids=str)
def test_run_survives_the_death_of_a_worker_or_a_node(
    kill: Kill, collection: SimpleNamespace, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ray starts a new worker and gives it the same batch: what it had written before is never seen."""
    if kill.nth % 2:
        shutil.copytree(collection.earlier, index)
    with run_on_ray(kill, collection.videos, index, tmp_path_factory):
        assert_survived(kill, collection, index)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("nth", [1, 2])
def test_run_survives_the_death_of_a_worker_over_one_part_of_a_video(
    nth: int, in_parts: SimpleNamespace, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The part is encoded again by another worker, while those that are done wait."""
    kill = Kill("parts-actor", SEGMENT_FILE, "after", nth)
    with run_on_ray(kill, in_parts.videos, index, tmp_path_factory):
        assert_survived(kill, in_parts, index)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_video_that_kills_every_worker_fails_and_no_other_does(
    collection: SimpleNamespace, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_on_ray(Kill("poison", "v7.mp4"), collection.videos, index, tmp_path_factory):
        failed = {Path(row["uri"]).name: row["error_kind"] for row in ledger(index) if row["status"] == schema.FAILED}
        assert failed == {"v5.mp4": "NotAVideo", "v7.mp4": "WorkerDied"}
        retry_videos(index, run=RunConfig(), in_process=True)
        assert visible(index) == visible(collection.undisturbed)
        assert verify(IndexStore.open(index)) == []


@contextmanager
def run_on_ray(kill: Kill, videos: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs it to its end, on a Ray whose processes are ended after the block."""
    ray_folder = tmp_path_factory.mktemp("r")
    process = start(kill, videos, index, RAY_TMPDIR=str(ray_folder), RAY_AUTH_MODE="disabled")
    try:
        process.communicate(timeout=300)
        assert process.returncode == 0
        yield
    finally:
        end_processes_of(ray_folder)


def assert_survived(kill: Kill, collection: SimpleNamespace, index: Path) -> None:
    assert Path(f"{index}.killed").exists(), f"{kill} was never reached"
    assert visible(index) == visible(collection.undisturbed)
    assert_as_if_nothing_had_happened(collection, index)


def end_processes_of(ray_folder: Path) -> None:
    """Ray's own processes end by themselves some time after their driver; this does not wait for it."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(ray_folder).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
