"""k-means of some rows of a matrix: k-means++ to start, then Lloyd's iterations, in chunks.

Shapes: N features, D numbers each, n rows of them that are clustered, k clusters.

Source: Arthur and Vassilvitskii, "k-means++", 2007; Lloyd, "Least Squares Quantization in PCM", 1982.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_ROWS_AT_ONCE = 8192
_MAX_ITERATIONS = 50
_TOLERANCE = 1e-4  # stop when an iteration gains less than this share of the inertia


class Clusters(NamedTuple):
    """What rows were grouped into.

    Attributes:
        centroids: float [k', D], of at least single precision. k' is the k asked for, or less where there are fewer
            different features.
        members: k' tensors int64, the rows of each cluster; none is empty.
    """

    centroids: Tensor
    members: list[Tensor]


def kmeans(features: Tensor, rows: Tensor, num_clusters: int, generator: torch.Generator) -> Clusters:
    """Group `rows` of `features` by likeness.

    Args:
        features: float [N, D], finite.
        rows: int64 [n], at least one.
        num_clusters: k, at least 1.
        generator: on the CPU.

    Returns:
        Clusters with centroids that are the means of their members, unless the iterations ran out.
    """
    points = _Points(features, rows)
    centroids = _spread_start(points, num_clusters, generator)
    exact = points.squared_distances(centroids).min(dim=1)
    nearest, distance = exact.indices, exact.values
    for _ in range(_MAX_ITERATIONS if distance.any() else 0):
        before, inertia = nearest, float(distance.sum())
        centroids = _with_empty_refilled(points.means(nearest, len(centroids)), points, nearest, distance)
        nearest, distance = points.nearest(centroids)
        if torch.equal(nearest, before) or inertia - float(distance.sum()) < _TOLERANCE * inertia:
            break
    used = nearest.bincount(minlength=len(centroids)) > 0
    members = [rows[nearest == number] for number in used.nonzero()[:, 0].tolist()]
    return Clusters(centroids[used], members)


class _Points:
    """Rows of a matrix, looked at a chunk at a time in at least single precision."""

    def __init__(self, features: Tensor, rows: Tensor) -> None:
        self._features, self._rows = features, rows
        self.dtype = torch.promote_types(features.dtype, torch.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self) -> Iterator[Tensor]:
        for rows in self._rows.split(_ROWS_AT_ONCE):
            yield self._features[rows].to(self.dtype)

    def at(self, positions: Tensor) -> Tensor:
        return self._features[self._rows[positions]].to(self.dtype)

    def squared_distances(self, centroids: Tensor) -> Tensor:
        """[n, k], by differences, so that equal rows have a distance of exactly 0."""
        return torch.cat(
            [
                torch.cdist(chunk, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
                for chunk in self.chunks()
            ]
        )

    def nearest(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Which centroid is nearest, int64 [n], and the squared distance to it, [n]."""
        norms, nearest, distances = centroids.square().sum(dim=1), [], []
        for chunk in self.chunks():
            least, which = torch.addmm(norms, chunk, centroids.T, alpha=-2).min(dim=1)
            nearest.append(which)
            distances.append((least + chunk.square().sum(dim=1)).clamp(min=0))
        return torch.cat(nearest), torch.cat(distances)

    def means(self, nearest: Tensor, num_clusters: int) -> Tensor:
        """Of the members of each cluster, [k, D]; NaN of an empty one."""
        totals = torch.zeros(num_clusters, self._features.shape[1], dtype=self.dtype, device=nearest.device)
        for chunk, which in zip(self.chunks(), nearest.split(_ROWS_AT_ONCE), strict=True):
            totals.index_add_(0, which, chunk)
        return totals / nearest.bincount(minlength=num_clusters)[:, None]


def _spread_start(points: _Points, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: each next centroid is a row drawn by its squared distance, the best of a few draws.

    Stops early once every row equals a centroid.
    """
    first = torch.randint(len(points), (1,), generator=generator)
    chosen = [points.at(first.to(points._rows.device))]
    distance = points.squared_distances(chosen[0])[:, 0]
    num_draws = 2 + int(math.log(num_clusters))
    while len(chosen) < num_clusters and distance.any():
        steps = distance.double().cumsum(dim=0)
        draws = torch.rand(num_draws, generator=generator, dtype=torch.float64).to(steps.device) * steps[-1]
        candidates = points.at(torch.searchsorted(steps, draws, right=True).clamp(max=len(steps) - 1))
        shorter = torch.minimum(distance[:, None], points.squared_distances(candidates))
        best = int(shorter.sum(dim=0).argmin())
        chosen.append(candidates[best : best + 1])
        distance = shorter[:, best]
    return torch.cat(chosen)


def _with_empty_refilled(centroids: Tensor, points: _Points, nearest: Tensor, distance: Tensor) -> Tensor:
    """A cluster that lost all its members starts again at the row that is farthest from its own centroid."""
    empty = (nearest.bincount(minlength=len(centroids)) == 0).nonzero()[:, 0]
    if len(empty):
        centroids[empty] = points.at(distance.topk(len(empty)).indices)
    return centroids
