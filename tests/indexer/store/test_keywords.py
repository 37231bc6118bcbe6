import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.errors import StorageError
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.keyword_files import build_keyword_file, list_keyword_manifests, open_keyword_file
from indexer.store.keywords import KeywordCoverage, Keywords, any_of, in_columns, phrase, snippets, tokens_of
from indexer.store.moment_texts import MomentText
from indexer.store.verify import repair_vectors, verify

WORDS = ["red", "dog", "dogs", "car", "Café", "snow-white"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=8)


def keywords_of(said, num_in_file, folder):
    """Texts of which the first so many are in a file and the others are not."""
    texts = [MomentText(text, "", "", "") for text in said]
    ids, batches = np.arange(len(said), dtype=np.int64), pa.array(["b"] * num_in_file)
    build = {"segment_ids": ids[:num_in_file], "batch_ids": batches, "ledger_version": 1}
    manifest = build_keyword_file(folder, texts=texts[:num_in_file], **build)
    file = open_keyword_file(folder, manifest)
    return Keywords(KeywordCoverage(file, ids[:num_in_file], ids[num_in_file:]), texts[num_in_file:])


def cut(text):
    return re.findall(r"\w+", text.lower().replace("é", "e"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=TEXTS, wanted=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), data=st.data())
def test_match_is_that_of_a_loop_over_the_texts(tmp_path, said, wanted, data):
    keywords = keywords_of(said, data.draw(st.integers(0, len(said))), tmp_path / "keywords")
    words = cut(" ".join(wanted))
    expected = [
        i
        for i, text in enumerate(said)
        if any(cut(text)[at : at + len(words)] == words for at in range(len(cut(text)) + 1))
    ]
    assert sorted(keywords.match(phrase(" ".join(wanted)))) == expected
    stem = wanted[0][:2]
    expected = [i for i, text in enumerate(said) if any(word.startswith(stem.lower()) for word in cut(text))]
    assert sorted(keywords.match(phrase(stem, is_prefix=True))) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=TEXTS, data=st.data())
def test_scores_do_not_depend_on_what_the_file_covers(tmp_path, said, data):
    folder = tmp_path / "keywords"
    rows, scores = keywords_of(said, len(said), folder).bm25(["dog", "red"])
    part_rows, part_scores = keywords_of(said, data.draw(st.integers(0, len(said))), folder).bm25(["dog", "red"])
    assert dict(zip(rows, scores, strict=True)) == pytest.approx(dict(zip(part_rows, part_scores, strict=True)))


def test_bm25_is_the_formula(tmp_path):
    said = ["a dog runs", "the dog and another dog on a sunny beach", "two cats", "a car", "snow", "more snow"]
    rows, scores = keywords_of(said, 4, tmp_path / "keywords").bm25(["dog"])
    lengths = np.array([len(text.split()) for text in said])
    idf = np.log((len(said) - 2 + 0.5) / (2 + 0.5))
    count = {0: 1, 1: 2}
    for row, score in zip(rows, scores, strict=True):
        norm = 1.2 * (1 - 0.75 + 0.75 * lengths[row] / lengths.mean())
        assert score == pytest.approx(idf * count[row] * 2.2 / (count[row] + norm))


def test_rarity_counts_moments(tmp_path):
    keywords = keywords_of(["a", "a b", "a c", "c"], 2, tmp_path / "keywords")
    expected = [max(1e-6, np.log((4 - n + 0.5) / (n + 0.5))) for n in (3, 1, 2, 0)]
    assert keywords.rarity(["a", "b", "c", "nowhere"]) == pytest.approx(expected)


def test_columns_restrict_what_is_looked_at():
    texts = [MomentText("dog", "", "", ""), MomentText("", "dog", "", ""), MomentText("", "", "", "dog_2")]
    assert snippets(texts, in_columns(["transcript", "name"], phrase("DOG"))) == ["**dog**", None, "**dog**_2"]


@pytest.mark.parametrize("text", ['a "b" OR c*', "x' AND y", "\0", "\ud800 z", "", "NEAR(a b)", "{title}: a", "赤い車"])
def test_any_text_is_safe_as_phrase_and_as_words(tmp_path, text):
    keywords = keywords_of([text, "other"], 1, tmp_path / "keywords")
    for token in tokens_of(text):
        assert 0 in keywords.match(any_of([phrase(token)]))
    assert 1 not in keywords.match(phrase(text))


def test_keywords_of_an_index_follow_the_ledger(maker):
    maker.store.build_keywords()
    maker.add("/v/d.mp4", batch_id="b2")
    maker.remove("/v/a.mp4")
    keywords, coverage = maker.store.snapshot().keywords, maker.store.snapshot().keyword_coverage
    assert (coverage.uncovered, coverage.tombstones) == (2, 2)
    uris = maker.store.snapshot().videos["uri"].to_pylist()
    rows = maker.store.snapshot().rows.video_rows
    for name, found in [("a", set()), ("b", {"/v/b.mp4"}), ("d", {"/v/d.mp4"})]:
        matched = keywords.match(in_columns(["name"], phrase(name)))
        assert {uris[rows[row]] for row in matched} == found
        assert len(matched) == 2 * len(found)
    assert maker.store.build_keywords()
    assert not maker.store.build_keywords()
    after = maker.store.snapshot().keyword_coverage
    assert after.file is not None
    assert (after.uncovered, after.tombstones) == (0, 0)


@pytest.mark.parametrize("suffix", [".sqlite", ".rows.parquet"])
@pytest.mark.parametrize("mend", [repair_vectors, compact, IndexStore.build_keywords])
def test_a_damaged_file_is_passed_over_and_rebuilt(maker, suffix, mend):
    maker.store.build_vectors()
    maker.store.build_keywords()
    (path,) = maker.store.keywords_folder.glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-7])
    assert maker.store.snapshot().keyword_coverage.file is None
    assert len(maker.store.snapshot().keywords.match(phrase("b"))) == 2
    assert ["damaged" in problem for problem in verify(maker.store)] == [True]
    mend(maker.store)
    assert verify(maker.store) == []
    assert maker.store.snapshot().keyword_coverage.file is not None
    assert len(list(list_keyword_manifests(maker.store.keywords_folder))) == 1


def test_keywords_that_cannot_be_written_are_one_error_and_leave_nothing(maker):
    maker.store.keywords_folder.write_text("in the way")
    with pytest.raises(StorageError, match="keywords could not be written"):
        maker.store.build_keywords()
