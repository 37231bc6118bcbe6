import pytest

from indexer.errors import UsageError
from indexer.query.inputs import check_k, check_labels, check_query


def test_queries_are_trimmed_and_bounded():
    assert check_query("  a dog ") == "a dog"
    assert len(check_query("x" * 10_000)) == 10_000
    for bad in ("", "  \n", "x" * 20_001):
        with pytest.raises(UsageError):
            check_query(bad)


def test_k_is_bounded():
    assert check_k(1) == 1
    for bad in (0, -1, 1001):
        with pytest.raises(UsageError, match="between 1 and 1000"):
            check_k(bad)


def test_labels_lose_blanks_and_duplicates_and_keep_their_order():
    assert check_labels([" surfing", "", "cooking", "surfing ", "  "]) == ["surfing", "cooking"]
    for bad in ([], ["", " "], [str(i) for i in range(1001)]):
        with pytest.raises(UsageError):
            check_labels(bad)
