"""Hierarchical k-means: frame features to visual words, the targets of masked-frame pretraining.

Shapes: N features, D numbers each, k = branching, V = number of words.

Source: Sun et al., "VideoBERT", 2019, section 4.2 (k = 12 and four levels, 20,736 words); Nister and Stewenius,
"Scalable Recognition with a Vocabulary Tree", 2006, for the greedy descent. Departure: features of single frames
instead of clips.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.errors import InputError, WeightsDamagedError, WeightsNotFoundError
from model.kmeans import kmeans
from model.safetensors_file import write_safetensors

FORMAT = "videobert-vocabulary-1"
_FEATURES_AT_ONCE = 1024  # a chunk looks at `k` centroids each: 63 MB of single precision for k = 12 and D = 1280


class Level(NamedTuple):
    """One level of the tree.

    Attributes:
        centroids: float [n, D], those with the same parent side by side.
        first_child: int64 [p + 1]; node i of the p nodes above has the children `first_child[i]` up to but not
            including `first_child[i + 1]`.
    """

    centroids: Tensor
    first_child: Tensor


class VisualVocabulary(nn.Module):
    """A tree of centroids. Its leaves are the visual words, numbered from 0 in the order of the tree.

    A module, so that it moves between devices with the model that it is part of; nothing in it is trained, and none of
    it is in `state_dict`: it has a file of its own.

    Attributes:
        branching: children that a node has at most.
        feature_dim: D.
    """

    def __init__(self, levels: list[Level], branching: int) -> None:
        super().__init__()
        self.branching = branching
        self.feature_dim = levels[0].centroids.shape[1]
        self._num_levels = len(levels)
        for number, level in enumerate(levels):
            self.register_buffer(f"centroids_{number}", level.centroids, persistent=False)
            self.register_buffer(f"first_child_{number}", level.first_child, persistent=False)

    @classmethod
    def fit(cls, features: Tensor, branching: int = 12, num_levels: int = 4, seed: int = 0) -> VisualVocabulary:
        """Cluster features, then the features of each cluster, and so on.

        A node whose features have at most `branching` different values gets exactly these as its children; so with
        fewer different features than leaves there are fewer words than `branching ** num_levels`, each word has at
        least one of the features, and where they are few enough each different feature is a word of its own. For good
        centroids give some 30 to 256 features a word; beyond the features themselves, fitting needs about 100 MB.

        Args:
            features: float [N, D], N at least 1; float16 will do and is worked on in single precision, in chunks.
            branching: k, at least 2.
            num_levels: at least 1.
            seed: of the starting centroids. The same arguments give the same vocabulary.

        Raises:
            InputError: another shape, a value that is not finite, or a number out of range.
        """
        _check(features, branching, num_levels)
        generator = torch.Generator().manual_seed(seed)
        groups, levels = [torch.arange(len(features), device=features.device)], []
        for _ in range(num_levels):
            split = [kmeans(features, rows, branching, generator) for rows in groups]
            sizes = torch.tensor([0, *(len(clusters.centroids) for clusters in split)])
            centroids = torch.cat([clusters.centroids for clusters in split])
            levels.append(Level(centroids, sizes.cumsum(dim=0).to(features.device)))
            groups = [rows for clusters in split for rows in clusters.members]
        return cls(levels, branching)

    @property
    def levels(self) -> list[Level]:
        """From the coarsest to the leaves."""
        return [
            Level(getattr(self, f"centroids_{number}"), getattr(self, f"first_child_{number}"))
            for number in range(self._num_levels)
        ]

    @property
    def num_words(self) -> int:
        """V: `branching ** num_levels` where there were enough different features."""
        return len(self.levels[-1].centroids)

    @property
    def fingerprint(self) -> str:
        """Name of the mapping from features to words: 32 hex digits."""
        digest = hashlib.sha256()
        for level in self.levels:
            for tensor in level:
                digest.update(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
                digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]

    def words(self, features: Tensor) -> Tensor:
        """The word of each feature: from the root down, always to the nearest child.

        As the search is greedy, it is not always the nearest of all words; with one level it is.

        Args:
            features: float [N, D], on the vocabulary's device; of any precision.

        Returns:
            int64 [N], each 0 up to V - 1.

        Raises:
            InputError: another shape.
        """
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise InputError(f"features must be [N, {self.feature_dim}], got {list(features.shape)}")
        return torch.cat([self._descend(chunk) for chunk in features.split(_FEATURES_AT_ONCE)])

    def centroid(self, words: Tensor) -> Tensor:
        """The centroid of each word: int64 [N] -> float [N, D]."""
        return self.levels[-1].centroids[words]

    def save(self, path: Path) -> None:
        """Write centroids and tree to a safetensors file, with the fingerprint in its metadata."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.named_buffers()}
        facts = {"format": FORMAT, "branching": str(self.branching), "num_levels": str(self._num_levels)}
        write_safetensors(tensors, path, {**facts, "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: Path) -> VisualVocabulary:
        """Read what `save` wrote, onto the CPU.

        Raises:
            WeightsNotFoundError: there is no such file.
            WeightsDamagedError: it is cut short, changed, or no vocabulary.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise WeightsNotFoundError(f"there is no visual vocabulary {str(path)!r}; fit one first")
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise WeightsDamagedError(f"{path} is not a safetensors file, or it is cut short: {error}") from error
        if facts.get("format") != FORMAT:
            raise WeightsDamagedError(f"{path} must have the format {FORMAT!r}, got {facts.get('format')!r}")
        try:
            numbers = range(int(facts["num_levels"]))
            levels = [Level(tensors[f"centroids_{n}"], tensors[f"first_child_{n}"]) for n in numbers]
            vocabulary = cls(levels, int(facts["branching"]))
        except (KeyError, ValueError, IndexError) as error:
            raise WeightsDamagedError(f"{path} lacks a part of the vocabulary: {error!r}; fit it again") from error
        if vocabulary.fingerprint != facts.get("fingerprint"):
            raise WeightsDamagedError(f"{path} is not what was written: its fingerprint must be {facts['fingerprint']}")
        return vocabulary

    def _descend(self, features: Tensor) -> Tensor:
        features = features.to(self.levels[0].centroids.dtype)
        node = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        for centroids, first_child in self.levels:
            first, end = first_child[node], first_child[node + 1]
            child = first[:, None] + torch.arange(self.branching, device=node.device)  # [N, k]
            candidates = centroids[child.clamp(max=len(centroids) - 1)]  # [N, k, D]
            # |x - c|^2 without |x|^2, which is the same for all c
            distance = candidates.square().sum(dim=2) - 2 * (candidates @ features[:, :, None])[:, :, 0]
            node = first + distance.masked_fill(child >= end[:, None], torch.inf).argmin(dim=1)
        return node


def _check(features: Tensor, branching: int, num_levels: int) -> None:
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise InputError(
            f"features must be float [N, D] with N at least 1, got {features.dtype} {list(features.shape)}"
        )
    if branching < 2:
        raise InputError(f"branching must be at least 2, got {branching!r}")
    if num_levels < 1:
        raise InputError(f"num_levels must be at least 1, got {num_levels!r}")
    finite = torch.cat([chunk.isfinite().all(dim=1) for chunk in features.split(_FEATURES_AT_ONCE)])
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise InputError(f"features must be finite, row {row} is not")
