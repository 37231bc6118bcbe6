"""The words of moments: what is said, seen and written in them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa

# A label that the model itself hardly believes in is no word of the moment.
MIN_LABEL_SCORE = 0.1


class MomentText(NamedTuple):
    """The words of one moment.

    Attributes:
        transcript: what is said.
        labels: names of the classes seen.
        title: that of the video's container.
        name: the file name of the video, without extension.
    """

    transcript: str
    labels: str
    title: str
    name: str


def moment_texts(moments: pa.Table, uris: Sequence[str], titles: Sequence[str | None]) -> Iterator[MomentText]:
    """The words of some moments.

    Args:
        moments: columns `transcript` and `labels` of `schema.SEGMENTS`.
        uris, titles: of the video of each moment.
    """
    rows = zip(moments["transcript"].to_pylist(), moments["labels"].to_pylist(), uris, titles, strict=True)
    for transcript, labels, uri, title in rows:
        believed = [label["label"] for label in labels or [] if label["score"] >= MIN_LABEL_SCORE]
        yield MomentText(transcript or "", ", ".join(believed), title or "", _name(uri))


def _name(uri: str) -> str:
    path = unquote(uri) if uri.startswith("file://") else uri
    return posixpath.splitext(path.rsplit("/", 1)[-1])[0]
