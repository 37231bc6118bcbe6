"""From data to a run folder in which workers find all they need."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexer.errors import UsageError
from indexer.training.captions import write_sentences
from indexer.training.classes import class_names
from indexer.training.dataset import write_from_cache
from indexer.training.feature_cache import FeatureCache
from indexer.training.features import Looked, look_at_all
from indexer.training.items import Items
from indexer.training.job import PRETRAIN, Job
from indexer.training.pretraining import fit_vocabulary, open_index, write_moments
from indexer.training.records import CAPTIONS, Collection, Problem, read_collection
from indexer.training.run_folder import Prepared, once, ready, run_folder
from indexer.training.split import hold_out
from model.facts import canonical_name, frames_fingerprint, model_fingerprint
from model.pretraining import PretrainingSettings
from model.training_plan import TrainingSettings
from model.weights import load_model, load_videobert


def prepare_training(
    data: str,
    out: str,
    *,
    model: str,
    task: str | None,
    settings: Callable[[str], TrainingSettings],
    batch_size: int | None = None,
    held_out_share: float = 0.1,
    max_frames: int = 32,
    cache: Path,
    resume: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Reads captions or classes, looks at every image and video, and writes the run folder.

    Args:
        data: see `read_collection`.
        out: the file that will be written.
        model: preset or checkpoint.
        task: see `read_collection`.
        settings: gives them for "captions" or "classes".
        batch_size: None chooses it by the number of items, up to that of the settings.
        held_out_share: of the items, for validation.
        max_frames: of a video.
        cache: folder of the feature cache.
        resume: see `run_folder`.
        on_progress: items looked at, and in all.

    Raises:
        UsageError: the data cannot be trained on.
        StorageError: a folder cannot be written.
    """
    collection, model = read_collection(data, task), canonical_name(model)
    if collection.task != CAPTIONS:
        class_names([list(record.texts) for record in collection.records])  # complains before any work is done
    folder = run_folder(out, resume=resume)
    chosen = settings(collection.task)
    frames = frames_fingerprint(model)
    facts = {
        "data": _digest(collection),
        "model": model_fingerprint(model),
        "frames": frames,
        "held_out": held_out_share,
        "max_frames": max_frames,
    }
    wanted = {"task": collection.task, "seed": chosen.seed, **facts}

    def prepare() -> list[Problem]:
        videobert = load_videobert(model, for_training=True) if collection.task == CAPTIONS else None
        loaded = videobert or load_model(model)
        features = FeatureCache(cache / f"{frames[:16]}-{max_frames}", loaded.feature_shape)
        looked = look_at_all(collection.records, loaded, features, max_frames, on_progress)
        items = _items(collection, looked, held_out_share, chosen.seed)
        write_from_cache(folder, features, looked.keys, loaded.feature_shape)
        if videobert is not None:
            write_sentences(folder, items.texts, videobert)
        items.save(folder)
        return looked.problems

    problems = collection.problems + once(folder, wanted, prepare)
    options: dict[str, Any] = {} if collection.task == CAPTIONS else {"head": {}}
    job = Job(
        kind=collection.task,
        folder=str(folder),
        out=str(Path(out).absolute()),
        model=model,
        settings=chosen,
        facts=facts,
        options=options,
    )
    return ready(job, batch_size, problems)


def prepare_pretraining(
    index: str,
    out: str,
    *,
    model: str | None,
    settings: TrainingSettings,
    pretraining: PretrainingSettings,
    batch_size: int | None = None,
    held_out_share: float = 0.1,
    branching: int | None = None,
    num_levels: int | None = None,
    resume: bool = True,
) -> Prepared:
    """Copies what pretraining needs out of an index, fits the visual vocabulary, and writes the run folder.

    Args:
        index: folder of the index.
        out: the checkpoint that will be written.
        model: None is that of the index; another one must have made the same index.
        settings: how to train.
        pretraining: which objectives, and how much is masked.
        batch_size: None chooses it by the number of moments.
        held_out_share: of the videos, for validation.
        branching, num_levels: of the vocabulary; None chooses them by the number of frames.
        resume: see `run_folder`.

    Raises:
        IndexDirectoryError: the index cannot be used.
        UsageError: it holds nothing to learn from.
    """
    snapshot, name = open_index(index, model)
    folder = run_folder(out, resume=resume)
    facts = {
        "index": str(snapshot.ledger.version),
        "data": hashlib.blake2b(snapshot.rows.segment_ids.tobytes(), digest_size=16).hexdigest(),
        "model": model_fingerprint(name),
        "held_out": held_out_share,
        "branching": branching,
        "num_levels": num_levels,
    }

    def prepare() -> list[Problem]:
        write_moments(folder, snapshot, held_out_share, settings.seed)
        fit_vocabulary(folder, branching, num_levels, settings.seed)
        return []

    problems = once(folder, {"task": PRETRAIN, "seed": settings.seed, **facts}, prepare)
    options = {"pretraining": {name: list(v) if isinstance(v, tuple) else v for name, v in vars(pretraining).items()}}
    job = Job(
        kind=PRETRAIN,
        folder=str(folder),
        out=str(Path(out).absolute()),
        model=name,
        settings=settings,
        facts=facts,
        options=options,
    )
    return ready(job, batch_size, problems)


def _items(collection: Collection, looked: Looked, held_out_share: float, seed: int) -> Items:
    """The items that can be trained on, split by class where each has one.

    Raises:
        UsageError: there is none, or only one class is left.
    """
    if not looked.records:
        first = looked.problems[0]
        count = len(collection.records)
        raise UsageError(f"none of the {count} files can be read; the first: {first.name}: {first.reason}")
    texts = [list(record.texts) for record in looked.records]
    one_class_each = collection.task != CAPTIONS and not collection.several
    groups = [own[0] if one_class_each else None for own in texts]
    return Items(
        names=[record.name for record in looked.records],
        texts=texts,
        held_out=hold_out(looked.keys, groups, held_out_share, seed),
        labels=[] if collection.task == CAPTIONS else class_names(texts),
        several=collection.several,
    )


def _digest(collection: Collection) -> str:
    """Changes with the rows, and with size or time of a file."""
    digest = hashlib.blake2b(digest_size=16)
    for record in collection.records:
        facts: tuple[object, ...] = (record.name, record.texts)
        if record.read is None:
            try:
                status = os.stat(record.path)
                facts += (status.st_size, status.st_mtime_ns)
            except OSError:
                facts += (None,)
        digest.update(repr(facts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
