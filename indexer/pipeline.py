"""One `index` run: list, compare with the ledger, encode what is new, commit every few seconds, build the vectors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from indexer.batches import EncoderSettings
from indexer.config import DEFAULT_SAMPLING_MODE, IndexConfig, RunConfig, SamplingConfig
from indexer.default_model import DefaultModel, default_model
from indexer.errors import IndexNotFoundError
from indexer.ingest.files import MissingFile, VideoFile, is_folder
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.paths import uri_to_path
from indexer.ingest.plan import Plan, diff
from indexer.ingest.sources import NamedFiles, list_videos
from indexer.known import known_videos_unchanged
from indexer.phases import Profile
from indexer.recorder import Progress, Recorder, RunSummary
from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.vector_shards import MapShards, VectorShard
from indexer.thread_encoding import encode_in_threads, is_handful, num_useful_threads
from indexer.work import BatchResult, WorkItem, WorkItems, in_order_of_work
from model.weights import canonical_name, frames_fingerprint, model_facts, require_weights

__all__ = ["Progress", "RunSummary", "index_videos", "plan_run", "retry_videos"]


def plan_run(sources: Sequence[str], index_path: str | Location, run: RunConfig) -> tuple[Plan, list[MissingFile]]:
    """What `index` would do: nothing is written. The second value lists what the sources name but is not there.

    Raises:
        SourceError: a source does not exist or holds no video.
    """
    listing = list_videos(sources)
    return diff(listing, known_videos_unchanged(index_path), retry_failed=run.retry_failed), listing.missing


def index_videos(
    sources: Sequence[str],
    index_path: str | Location,
    *,
    model: str | None = None,
    sampling: SamplingConfig,
    run: RunConfig,
    in_process: bool | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_default_model: Callable[[DefaultModel], None] = lambda chosen: None,
) -> RunSummary:
    """Brings an index up to date with its sources.

    Args:
        sources: files, folders, globs and manifests.
        index_path: the index; created if it does not exist.
        model: preset or checkpoint; an existing index must have been made with the same. None: that of the index, or
            for a new one what `default_model` says.
        sampling: frames and moments; likewise; its mode is that of the index if it has none itself.
        run: how to carry it out.
        in_process: encode one video after the other in this process, without Ray. The rows are the same. None: by a few
            threads of this process where Ray would be later, and nobody asked for workers, a cluster or a GPU.
        on_progress: called about once a second, from this thread.
        on_default_model: called when an index has been created and its model was chosen here.

    Raises:
        SourceError: a source does not exist or holds no video; nothing was created.
        IndexSettingsError, IndexFormatError: the index was made with other settings, or is damaged.
        ModelError: the model's weights are missing or damaged.
        StorageError, WorkerError: the run stopped, or could not begin; what was committed is kept.
        KeyboardInterrupt: the run was stopped by hand; what had arrived was committed.
    """
    started, profile = time.monotonic(), Profile()
    with profile.watch.phase("list"):
        listing = list_videos(sources)
    store = _open_or_create(index_path, model, sampling, run, on_default_model)
    recorder = Recorder(store, run, started, on_progress, profile)
    with profile.watch.phase("list"):
        plan = diff(listing, recorder.known, retry_failed=run.retry_failed)
    files = in_order_of_work(itertools.chain(plan.new, plan.changed), run.limit)
    recorder.expect(itertools.islice(plan.new, run.limit), plan)
    recorder.record_missing([*listing.missing, *listing.unlisted])
    recorder.record_left_alone(plan)
    return _encode(files, recorder, in_process)


def retry_videos(
    index_path: str | Location,
    *,
    stage: str | None = None,
    run: RunConfig,
    in_process: bool | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunSummary:
    """Indexes the failed videos of the ledger again, wherever they lie, with the settings of the index.

    Folders that could not be listed are left as they are: only `index` lists folders.

    Args:
        index_path: an index that exists.
        stage: only those that failed there: "read", "open", "decode", "encode" or "write".
        run, in_process, on_progress: as for `index_videos`.

    Raises:
        IndexNotFoundError: there is no index.
        Otherwise as `index_videos`.
    """
    started = time.monotonic()
    config = IndexStore.open(index_path).config
    store = _open_or_create(index_path, config.model, config.sampling, run)
    recorder = Recorder(store, run, started, on_progress)
    missing: list[MissingFile] = []
    files = in_order_of_work(_files_at(map(uri_to_path, recorder.failed(stage)), missing), run.limit)
    recorder.record_missing(missing)
    return _encode(files, recorder, in_process)


def _files_at(paths: Iterable[str], missing: list[MissingFile]) -> Iterator[VideoFile]:
    """The files at some paths, folders left out; those that cannot be read are added to `missing`."""
    named = NamedFiles()
    for path in paths:
        if is_folder(path):
            continue
        found = named.look_at(path)
        if isinstance(found, VideoFile):
            yield found
        else:
            missing.append(found)


def _open_or_create(
    path: str | Location,
    model: str | None,
    sampling: SamplingConfig,
    run: RunConfig,
    on_default_model: Callable[[DefaultModel], None] = lambda chosen: None,
) -> IndexStore:
    found = _settings_of(path)
    named = model or (found.model if found else "")
    chosen = None if named else default_model(run)
    name = chosen.name if chosen else named
    require_weights(name)  # a worker would find out only after the index has been made
    if not run.joins_cluster:  # there each worker finds out, on a machine of which nothing is known here
        with GuardedDecoder(decoder=run.decoder) as decoder:
            decoder.require_hardware()
    facts = model_facts(name)
    config = IndexConfig(
        model=canonical_name(name),
        model_fingerprint=facts.fingerprint,
        embedding_dim=facts.embedding_dim,
        feature_shape=facts.feature_shape,
        frames_fingerprint=frames_fingerprint(name),
        sampling=replace(sampling, mode=sampling.mode or (found.sampling.mode if found else DEFAULT_SAMPLING_MODE)),
    )
    store = IndexStore.open_or_create(path, config)
    if chosen:
        on_default_model(chosen)
    return store


def _settings_of(path: str | Location) -> IndexConfig | None:
    try:
        return IndexStore.open(path).config
    except IndexNotFoundError:
        return None


def _encode(files: OnDisk[VideoFile], recorder: Recorder, in_process: bool | None) -> RunSummary:
    """Brings in files in order of work, wherever they come from, and builds the vectors."""
    store, run = recorder.store, recorder.run
    todo = WorkItems(files, recorder.work_item)
    if todo:
        settings = EncoderSettings(
            index_path=str(store.path),
            model=store.config.model,
            sampling=store.config.sampling,
            decode_timeout_s=run.decode_timeout_s,
            decoder=run.decoder,
        )
        recorder.start(len(todo))
        if in_process or (in_process is None and _is_handful(files, run)):
            num_threads = 1 if in_process else num_useful_threads()
            recorder.consume(
                encode_in_threads(todo, settings, num_threads, recorder.stopped), phase="encoding in this process"
            )
        else:
            recorder.consume(_encode_on_ray(todo, settings, run))
    recorder.prune_rest()
    recorder.report("building vectors")
    with recorder.profile.watch.phase("vectors"):
        store.build_vectors(if_due=True, map_shards=_tasks_of(run, in_process))
        store.build_keywords()
        store.build_keys()
    recorder.report("done")
    recorder.summary.profile = recorder.profile.to_dict()
    return recorder.summary


def _tasks_of(run: RunConfig, in_process: bool | None) -> MapShards | None:
    """Tasks on a cluster that the run has joined; on one machine FAISS itself keeps all cores busy."""
    if in_process or not run.joins_cluster:
        return None

    def map_shards(function: Callable[[VectorShard], str], shards: Sequence[VectorShard]) -> Iterator[str]:
        from indexer.ray_tasks import map_on_ray

        return map_on_ray(function, shards, address=run.address)

    return map_shards


def _is_handful(files: Collection[VideoFile], run: RunConfig) -> bool:
    wants_ray = run.joins_cluster or run.num_workers is not None or run.device == "cuda" or run.share_model
    return not wants_ray and is_handful(files)


def _encode_on_ray(items: Collection[WorkItem], settings: EncoderSettings, run: RunConfig) -> Iterator[BatchResult]:
    from indexer.ray_cluster import ray_cluster  # loaded only when there is work
    from indexer.ray_encoding import encode_on_ray, load_ray_data

    with ray_cluster(run.address, meanwhile=load_ray_data) as cluster:
        yield from encode_on_ray(items, settings, cluster, run)
