"""The index that the page shows, shared by all visitors, and what is remembered between reruns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import streamlit as st

from indexer import VideoIndex
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.results import ClassifiedMoment, SearchResult


class Collection:
    """An open index. Many visitors use it at once, so that no search sees half of a reload.

    Attributes:
        index: the open index; to read counts from. Ask questions through the functions below.
        lock: held while the index is asked or reloaded.
        generation: goes up with every version of the index that was seen; part of what answers are remembered under.
    """

    def __init__(self, path: str) -> None:
        self.index = VideoIndex.open(path)
        self.lock = threading.Lock()
        self.generation = 0

    def refresh(self) -> None:
        """Moves on to the newest version."""
        with self.lock:
            self.generation += self.index.reload()


def _identity(collection: Collection) -> tuple[str, int]:
    return str(collection.index.path), collection.generation


_BY_VERSION: dict[str | type[Any], Callable[[Any], Any]] = {Collection: _identity}


@st.cache_resource(show_spinner="Opening the index …")
def open_collection(path: str) -> Collection:
    """Raises IndexDirectoryError."""
    return Collection(path)


@st.cache_data(max_entries=64, show_spinner="Searching …", hash_funcs=_BY_VERSION)
def search(collection: Collection, query: str, k: int, where: Filters, diversity: Diversity) -> SearchResult:
    """As `VideoIndex.search`."""
    with collection.lock:
        return collection.index.search(query, k, where=where, diversity=diversity)


@st.cache_data(max_entries=64, show_spinner="Looking at the example …", hash_funcs=_BY_VERSION)
def search_like(
    collection: Collection, example: int | str, k: int, where: Filters, diversity: Diversity
) -> SearchResult:
    """As `VideoIndex.search_like`."""
    with collection.lock:
        return collection.index.search_like(example, k, where=where, diversity=diversity)


@st.cache_data(max_entries=4, show_spinner="Comparing every moment with the labels …", hash_funcs=_BY_VERSION)
def classify(collection: Collection, labels: tuple[str, ...]) -> list[ClassifiedMoment]:
    """As `VideoIndex.classify`."""
    with collection.lock:
        return collection.index.classify(labels)


@st.cache_data(max_entries=1024, show_spinner=False, hash_funcs=_BY_VERSION)
def thumbnail(collection: Collection, segment_id: int) -> bytes | None:
    """As `VideoIndex.thumbnail`."""
    with collection.lock:
        return collection.index.thumbnail(segment_id)


@st.cache_data(max_entries=8, show_spinner="Cutting the clip …", hash_funcs=_BY_VERSION)
def clip(collection: Collection, video: str, start_s: float, end_s: float) -> bytes:
    """As `VideoIndex.clip`. Without the lock: it takes seconds, and asks the index only where the video is."""
    return collection.index.clip(video, start_s, end_s)
