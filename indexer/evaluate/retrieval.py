"""Text to video, video to text, and text to moment, over all stored vectors of an index.

Shapes: Q captions, V videos of the index, N moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.evaluate.bootstrap import Bootstrap, Figure, mean_of, median_of
from indexer.evaluate.metrics import (
    chance_median_rank,
    chance_of_rank,
    chance_reciprocal_rank,
    overlap,
    rank_of_span,
    ranks_of_right,
)
from indexer.evaluate.questions import Caption
from indexer.query.diversity import Diversity
from indexer.query.video_index import VideoIndex

RANKS = (1, 5, 10)
OVERLAPS = (0.3, 0.5, 0.7)
_MOST_NUMBERS = 20_000_000  # scores in memory at once


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one caption as a query: a row of queries.parquet.

    Attributes:
        row: of the table, from 1.
        query, video: the caption, and the video that it belongs to.
        rank: of that video by its best moment, 1 is first.
        start_s, end_s, score: that moment.
        first_video, first_score: what came first.
    """

    row: int
    query: str
    video: str
    rank: int
    start_s: float
    end_s: float
    score: float
    first_video: str
    first_score: float


class Moments:
    """All moments of an index, by video and time.

    Attributes:
        videos: URIs of the V videos that have a moment, sorted.
        vectors: float32 [N, dim].
        start_s, end_s: float [N].
        number: the place of each of them, by its URI.
        first, end: int [V], the first moment of each video and the one after its last.
    """

    def __init__(self, index: VideoIndex) -> None:
        rows = index.snapshot.rows
        uris = np.array(index.snapshot.videos["uri"].to_pylist(), dtype=object)
        place = np.argsort(np.argsort(uris, kind="stable"), kind="stable")[rows.video_rows]
        order = np.lexsort((rows.start_s, place))
        _, self.first = np.unique(place[order], return_index=True)
        self.videos: list[str] = uris[rows.video_rows[order[self.first]]].tolist()
        self.number = {uri: i for i, uri in enumerate(self.videos)}
        self.end = np.append(self.first[1:], len(order))
        self.vectors = index.snapshot.embeddings()[order]
        self.start_s, self.end_s = rows.start_s[order], rows.end_s[order]

    def best_of_videos(self, scores: np.ndarray) -> np.ndarray:
        """Scores [Q, N] of moments -> those of videos by their best moment [Q, V]."""
        return np.maximum.reduceat(scores, self.first, axis=1)

    def best_moment(self, scores: np.ndarray, video: int) -> int:
        """The number of the best moment of a video, by the scores [N] of all."""
        return int(self.first[video] + scores[self.first[video] : self.end[video]].argmax())


def text_to_video(moments: Moments, captions: Sequence[Caption], queries: np.ndarray) -> list[Answer]:
    """Ranks all videos of the index for each caption; the right one is the caption's own.

    Args:
        queries: float32 [Q, dim], the captions' vectors.
    """
    answers = []
    for part in _parts(len(captions), len(moments.vectors)):
        scores = queries[part] @ moments.vectors.T
        by_video = moments.best_of_videos(scores)
        right = np.array([moments.number[caption.video] for caption in captions[part]])
        ranks = ranks_of_right(by_video, right[:, None] == np.arange(len(moments.videos)))
        for i, caption in enumerate(captions[part]):
            best, first = moments.best_moment(scores[i], right[i]), int(by_video[i].argmax())
            answers.append(
                Answer(
                    row=caption.row,
                    query=caption.text,
                    video=caption.video,
                    rank=int(ranks[i]),
                    start_s=float(moments.start_s[best]),
                    end_s=float(moments.end_s[best]),
                    score=float(scores[i, best]),
                    first_video=moments.videos[first],
                    first_score=float(by_video[i, first]),
                )
            )
    return answers


def video_to_text(moments: Moments, captions: Sequence[Caption], queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks all captions for each video that has one, by its best moment; every caption of a video is right.

    Returns:
        Numbers of the videos, and the rank of the best right caption of each: both int, one entry a video.
    """
    owners = np.array([moments.number[caption.video] for caption in captions])
    videos, ranks = np.unique(owners), []
    longest = int((moments.end - moments.first).max())
    for part in _parts(len(videos), len(captions) * longest):
        spans = [slice(moments.first[video], moments.end[video]) for video in videos[part]]
        scores = np.stack([(moments.vectors[span] @ queries.T).max(axis=0) for span in spans])
        ranks.append(ranks_of_right(scores, videos[part][:, None] == owners))
    return videos, np.concatenate(ranks)


def rank_figures(
    ranks: np.ndarray, owners: np.ndarray, num_candidates: int, num_right: np.ndarray
) -> dict[str, Figure]:
    """Recall at 1, 5 and 10, mean reciprocal rank and median rank, with intervals and chance.

    Args:
        ranks: int [Q].
        owners: int [Q], the video that each query belongs to.
        num_candidates: how many were ranked.
        num_right: int [Q], how many of them are right.
    """
    draws = Bootstrap(owners)
    figures = {
        f"R@{k}": draws.figure(mean_of(ranks <= k), float(chance_of_rank(num_candidates, num_right, k).mean()))
        for k in RANKS
    }
    reciprocal = chance_reciprocal_rank(num_candidates, num_right)
    figures["MRR"] = draws.figure(mean_of(1 / ranks), float(reciprocal.mean()))
    figures["median rank"] = draws.figure(median_of(ranks), chance_median_rank(num_candidates, num_right))
    return figures


def moment_figures(index: VideoIndex, moments: Moments, captions: Sequence[Caption]) -> dict[str, Figure]:
    """Recall at 1, 5 and 10 of the merged moments that `search` returns, for captions with spans.

    Near-duplicates count one by one: a copy may be the right one. Chance is that of drawing moments of the index as
    they are stored.
    """
    draws = Bootstrap(np.array([moments.number[caption.video] for caption in captions]))
    texts, every = [caption.text for caption in captions], Diversity(collapse=False)
    results = index.search_many(texts, k=max(RANKS), syntax=False, diversity=every)
    found = [[(moment.video, moment.start_s, moment.end_s) for moment in result.results] for result in results]
    figures = {}
    for least in OVERLAPS:
        pairs = zip(found, captions, strict=True)
        ranks = np.array([rank_of_span(spans, one.video, one.spans, least) for spans, one in pairs])
        # A list may be shorter than k: "one more than all" must not count as found.
        ranks[ranks > np.array([len(spans) for spans in found])] = max(RANKS) + 1
        num_right = np.array([_num_right(moments, caption, least) for caption in captions])
        for k in RANKS:
            chance = float(chance_of_rank(len(moments.vectors), num_right, k).mean())
            figures[f"R@{k}, IoU {least}"] = draws.figure(mean_of(ranks <= k), chance)
    return figures


def _num_right(moments: Moments, caption: Caption, least: float) -> int:
    """How many stored moments overlap a right span enough."""
    video = moments.number[caption.video]
    spans = [(moments.start_s[i], moments.end_s[i]) for i in range(moments.first[video], moments.end[video])]
    return sum(any(overlap(span, right) >= least for right in caption.spans) for span in spans)


def _parts(num_rows: int, width: int) -> Iterator[slice]:
    rows = max(1, _MOST_NUMBERS // max(width, 1))
    return (slice(start, start + rows) for start in range(0, num_rows, rows))
