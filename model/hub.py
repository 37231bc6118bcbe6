"""Folders of weights in Hugging Face's layout: on this machine, in the hub's cache on it, or fetched from the hub.

Only safetensors files are read, never pickled ones, and never code that comes with a model. Needs no torch.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError
from model.pretrained_files import WEIGHTS_DIR_VARIABLE, file_sha256
from model.safetensors_file import SUFFIX, TensorEntry, read_safetensors_header

CONFIG_FILE = "config.json"
_WEIGHTS_FILE = f"model{SUFFIX}"
_SHARDS_FILE = f"model{SUFFIX}.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# What a snapshot may bring: no pickles, no code, no second copy of the weights in another framework's layout.
_FETCHED = ("*.json", "*.txt", "*.model", f"model*{SUFFIX}")


def require_package(package: str, extra: str, purpose: str) -> None:
    """Raises ModelError where an optional package is not installed; the text says which extra of ours brings it."""
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{purpose} needs the package {package}: run `pip install 'videobert-search[{extra}]'`")


def find_folder(reference: str, form: str) -> Path:
    """The folder of a model's files.

    Looked for as a path, under the same path or name in the folder that VIDEOBERT_WEIGHTS_DIR names (where an index
    remembers a folder that has moved), in the hub's cache on this machine, and on the hub.

    Args:
        reference: path of a folder, or the id of a model on the hub.
        form: what stands before it on the command line, e.g. "clip".

    Raises:
        WeightsNotFoundError: it is nowhere; the text says how to provide it.
    """
    places = _places(reference)
    for place in places:
        if (place / CONFIG_FILE).is_file():
            return place.absolute()
    if not reference or any(place.exists() for place in places) or not _HUB_ID.fullmatch(reference):
        looked = ", ".join(str(place) for place in places)
        raise WeightsNotFoundError(
            f"{form}:{reference} must name a folder with a {CONFIG_FILE} or a model on the hub (owner/name); looked "
            f"for: {looked}. If the folder has moved, set {WEIGHTS_DIR_VARIABLE} to the folder that now holds it"
        )
    return _from_hub(reference, form)


def _places(reference: str) -> list[Path]:
    path, parent = Path(reference).expanduser(), os.environ.get(WEIGHTS_DIR_VARIABLE)
    return list(dict.fromkeys([path, Path(parent, reference), Path(parent, path.name)])) if parent else [path]


def _from_hub(model_id: str, form: str) -> Path:
    require_package("huggingface_hub", "backbones", f"a model from the hub ({form}:{model_id})")
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(model_id, allow_patterns=list(_FETCHED), local_files_only=True))
        weights_files(cached)
        return cached
    except (OSError, ValueError, WeightsNotFoundError):  # not cached, or not all of it
        pass
    try:
        return Path(snapshot_download(model_id, allow_patterns=list(_FETCHED)))
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        folder = model_id.rpartition("/")[2]
        raise WeightsNotFoundError(
            f"{form}:{model_id} is no folder here, not in the hub's cache, and the hub did not give it "
            f"({(str(error) or repr(error)).splitlines()[0][:120]}). Where there is a network, run `hf download "
            f"{model_id} --local-dir {folder}`, copy the folder here, and use `--model {form}:{folder}`"
        ) from error


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights: one, or the shards that an index file lists.

    Raises:
        WeightsNotFoundError: there are none, or a shard is missing.
        WeightsDamagedError: the list of shards cannot be read.
    """
    if (folder / _WEIGHTS_FILE).is_file():
        return [folder / _WEIGHTS_FILE]
    if (folder / _SHARDS_FILE).is_file():
        shards = read_json(folder / _SHARDS_FILE).get("weight_map")
        if not isinstance(shards, dict) or not all(Path(str(name)).name == name for name in shards.values()):
            raise WeightsDamagedError(f"{folder / _SHARDS_FILE} must list files beside it; copy it again")
        files = [folder / name for name in sorted(set(shards.values()))]
        if missing := [file.name for file in files if not file.is_file()]:
            raise WeightsNotFoundError(f"{folder} lacks {missing[0]!r}, one of its {len(files)} weights files")
        return files
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise WeightsNotFoundError(
            f"{folder} holds {pickles[0]!r} but no {_WEIGHTS_FILE}: a pickled file can run code when it is read, so it "
            f"is refused; get a version of the model with {SUFFIX} files, or convert it where you trust it"
        )
    raise WeightsNotFoundError(f"{folder} must hold {_WEIGHTS_FILE} (or shards with {_SHARDS_FILE}), got neither")


def tensor_entries(folder: Path) -> dict[str, tuple[Path, TensorEntry]]:
    """Every tensor of the weights by name, with the file it is in. Each file is checked for its length.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `weights_files`, or a file is cut short.
    """
    return {
        name: (file, entry)
        for file in weights_files(folder)
        for name, entry in read_safetensors_header(file).tensors.items()
    }


def read_json(path: Path) -> dict[str, object]:
    """A JSON object.

    Raises:
        WeightsNotFoundError: there is no such file.
        WeightsDamagedError: it holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise WeightsNotFoundError(f"{path.parent} must hold {path.name!r}, which it does not; copy it again") from None
    except (OSError, ValueError) as error:
        raise WeightsDamagedError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise WeightsDamagedError(f"{path} must hold a JSON object, got {values!r:.40}")
    return values


def checksums(folder: Path, side_files: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the weights and of those side files that are there, by name."""
    beside = [folder / name for name in side_files if (folder / name).is_file()]
    return {file.name: _checksum(file) for file in [*weights_files(folder), *beside]}


def _checksum(file: Path) -> str:
    found = file.stat()
    return _cached_checksum(file, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # one run asks several times, and weights may be gigabytes
def _cached_checksum(file: Path, size_bytes: int, mtime_ns: int) -> str:
    return file_sha256(file)
