"""What a search and a classification return; the JSON contract of the command line and the service.

Both show themselves in a notebook, with pictures, and turn into tables: `to_arrow`, `to_pandas`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from indexer.schema import LABELS_TYPE

if TYPE_CHECKING:
    from indexer.store.snapshot import Snapshot

NONE_OF_THESE = "none of these"

_SPAN = [pa.field("video", pa.string()), pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64())]
_FOUND = pa.schema(
    [
        pa.field("rank", pa.int32()),
        *_SPAN,
        pa.field("score", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("labels", LABELS_TYPE),
        pa.field("transcript", pa.string()),
        pa.field("snippet", pa.string()),
        pa.field("segment_id", pa.int64()),
        pa.field("num_alike", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label and its score, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class AlikeMoment:
    """A moment that looks the same as one that is shown, and is not shown itself: see `Moment.alike`."""

    video: str
    start_s: float
    end_s: float
    segment_id: int


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A span of a video that answers a query.

    Attributes:
        rank: 1 is the best.
        video: URI of the video.
        start_s, end_s: the half-open span [start_s, end_s), seconds.
        score: cosine similarity of query and moment, higher where words of the query were said or are in the title or
            file name; compare within one query only.
        confidence: 0 to 1; the share of everyday queries, short and long, whose best hit in this index stands out
            less, or, where that is more, the part of the query's telling words that were said or written.
        labels: ImageNet classes seen, most probable first.
        transcript: what is said or written there, if known.
        segment_id: the best segment of the moment.
        snippet: some words around those that matched, these in **asterisks**; None where none did.
        num_alike: near-duplicates found that this moment stands for: copies of the file, a picture that stays as it is.
        alike: the first 20 of them, best first.
    """

    rank: int
    video: str
    start_s: float
    end_s: float
    score: float
    confidence: float
    labels: list[Label]
    transcript: str | None
    segment_id: int
    snippet: str | None = None
    num_alike: int = 0
    alike: list[AlikeMoment] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Without a snippet where no words matched, and without near-duplicates where there are none."""
        absent = {"snippet"} if self.snippet is None else set()
        absent |= set() if self.num_alike else {"num_alike", "alike"}
        return {name: value for name, value in asdict(self).items() if name not in absent}


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        query: as asked.
        matched: whether any moment is similar enough to be an answer at all, or has the words that must occur.
        results: moments, best first. Iterating over the answer, `len` and `[...]` mean these.
        snapshot: where the pictures for a notebook come from; None shows none.
    """

    query: str
    matched: bool
    results: list[Moment]
    snapshot: Snapshot | None = field(default=None, repr=False, compare=False)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return True  # an answer without moments is an answer

    def __getitem__(self, number: int) -> Moment:
        return self.results[number]

    def __getstate__(self) -> dict[str, Any]:
        """A copy that travels to another process leaves the pictures behind."""
        return {**self.__dict__, "snapshot": None}

    def to_dict(self) -> dict[str, Any]:
        moments = [moment.to_dict() for moment in self.results]
        return _rounded({"query": self.query, "matched": self.matched, "results": moments})

    def to_arrow(self) -> pa.Table:
        """One row a moment, best first, with the columns of `Moment`."""
        rows = [{name: value for name, value in asdict(one).items() if name != "alike"} for one in self.results]
        return pa.Table.from_pylist(rows, schema=_FOUND)

    def to_pandas(self) -> Any:
        """As `to_arrow`, a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def _repr_html_(self) -> str:
        from indexer.query.notebook import search_html

        return search_html(self)


@dataclass(frozen=True, kw_only=True)
class ClassifiedMoment:
    """A moment and how likely each of the asked labels fits.

    Attributes:
        video: URI of the video.
        start_s, end_s: the half-open span [start_s, end_s), seconds.
        labels: the labels asked for, all of them, highest score first.
        none_of_these: how likely none of them fits; with the scores of the labels it adds up to 1.
        segment_id: the moment.
    """

    video: str
    start_s: float
    end_s: float
    labels: list[Label]
    none_of_these: float
    segment_id: int

    @classmethod
    def of(
        cls, names: Sequence[str], scores: np.ndarray, *, video: str, start_s: float, end_s: float, segment_id: int
    ) -> ClassifiedMoment:
        """From the scores of L labels and, last, of none: float [L + 1]."""
        return cls(
            video=video,
            start_s=float(start_s),
            end_s=float(end_s),
            labels=[Label(label=names[j], score=float(scores[j])) for j in np.argsort(-scores[:-1], kind="stable")],
            none_of_these=float(scores[-1]),
            segment_id=int(segment_id),
        )

    @property
    def answer(self) -> str | None:
        """The likeliest label, or None where "none of these" is likelier."""
        best = self.labels[0]
        return best.label if best.score >= self.none_of_these else None

    @property
    def ranked(self) -> list[Label]:
        """The labels and "none of these" among them, highest score first."""
        none = Label(label=NONE_OF_THESE, score=self.none_of_these)
        return sorted([*self.labels, none], key=lambda label: -label.score)

    def to_dict(self) -> dict[str, Any]:
        return _rounded({**asdict(self), "answer": self.answer})


class Classification(list[ClassifiedMoment]):
    """Classified moments, by video and time.

    Args:
        moments: the moments asked for.
        num_moments: how many there are, of which these may be a part; None: these are all.
        snapshot: where the pictures for a notebook come from; None shows none.
    """

    def __init__(
        self,
        moments: Iterable[ClassifiedMoment] = (),
        *,
        num_moments: int | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        super().__init__(moments)
        self.num_moments = len(self) if num_moments is None else num_moments
        self.snapshot = snapshot

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy that travels to another process leaves the pictures behind."""
        return _classification, (list(self), self.num_moments)

    def to_arrow(self) -> pa.Table:
        """One row a moment: its span, `answer`, the score of every label as a column of its name, `none of these`."""
        names = sorted({label.label for moment in self for label in moment.labels})
        columns = [*_SPAN, pa.field("segment_id", pa.int64()), pa.field("answer", pa.string())]
        scores = [pa.field(name, pa.float64()) for name in [*names, NONE_OF_THESE]]
        rows = [
            [moment.video, moment.start_s, moment.end_s, moment.segment_id, moment.answer]
            + [{label.label: label.score for label in moment.labels}.get(name) for name in names]
            + [moment.none_of_these]
            for moment in self
        ]
        values: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [[] for _ in [*columns, *scores]]
        arrays = [pa.array(value, one.type) for value, one in zip(values, [*columns, *scores], strict=True)]
        return pa.Table.from_arrays(arrays, schema=pa.schema([*columns, *scores]))

    def to_pandas(self) -> Any:
        """As `to_arrow`, a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def _repr_html_(self) -> str:
        from indexer.query.notebook import classification_html

        return classification_html(self)


def _classification(moments: list[ClassifiedMoment], num_moments: int) -> Classification:
    return Classification(moments, num_moments=num_moments)


def _rounded(value: Any) -> Any:
    """Six decimals: more are noise, and make JSON hard to read."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
