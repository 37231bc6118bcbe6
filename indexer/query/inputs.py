"""Checks what people type: queries, k, label lists."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.errors import UsageError

MAX_K = 1000
MAX_QUERY_CHARS = 20_000
MAX_LABELS = 1000


def check_query(text: str) -> str:
    """The query without blanks around it.

    Raises:
        UsageError: it is empty or longer than 20,000 characters.
    """
    text = text.strip()
    if not text:
        raise UsageError('the query is empty: say what to look for, for example "a dog on a beach"')
    if len(text) > MAX_QUERY_CHARS:
        raise UsageError(f"the query must be at most {MAX_QUERY_CHARS} characters, got {len(text)}: shorten it")
    return text


def check_k(k: int) -> int:
    """Raises UsageError unless k is 1 to 1000."""
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k must be between 1 and {MAX_K}, got {k!r}")
    return k


def check_labels(labels: Iterable[str]) -> list[str]:
    """The labels without blanks and duplicates, in their order.

    Raises:
        UsageError: none is left, or there are more than 1000.
    """
    cleaned = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if not cleaned:
        raise UsageError('no labels given: name some, for example --labels "cooking,surfing"')
    if len(cleaned) > MAX_LABELS:
        raise UsageError(f"at most {MAX_LABELS} labels can be compared at once, got {len(cleaned)}")
    return cleaned
