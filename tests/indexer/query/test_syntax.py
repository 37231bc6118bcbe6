import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import UsageError
from indexer.query.syntax import parse_query


@pytest.mark.parametrize(
    ("query", "text", "required", "excluded"),
    [
        ("a dog", "a dog", (), ()),
        ('"red car" beach -snow', "red car beach", ('"red car"',), ('"snow"',)),
        ('skate* -"winter day"', "skate", ('"skate"*',), ('"winter day"',)),
        ('the "quick bro"* fox -s*', "the quick bro fox", ('"quick bro"*',), ('"s"*',)),
        ("“said so”", "said so", ('"said so"',), ()),
        ('x-ray of a 5" screen - once', 'x-ray of a 5" screen - once', (), ()),
        ("--help * - it's", "--help * - it's", (), ()),
    ],
)
def test_a_query_is_taken_apart(query, text, required, excluded):
    parsed = parse_query(query)
    assert (parsed.text, parsed.required, parsed.excluded) == (text, required, excluded)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ('"open', "a quote is not closed"),
        ('dog -"open', "a quote is not closed"),
        ("-dog", "says only what to leave out"),
        ('-dog -"big cat" -s*', "says only what to leave out"),
        ('""', "there is no word in"),
        ('dog "!?"', "there is no word in"),
        ("dog -'", None),
    ],
)
def test_a_malformed_query_is_refused_with_what_is_accepted(query, reason):
    if reason is None:
        assert parse_query(query).text == query
        return
    with pytest.raises(UsageError, match=reason) as caught:
        parse_query(query)
    assert "-word" in str(caught.value)
    assert repr(query) in str(caught.value)


@given(st.text())
def test_any_text_is_taken_apart_or_refused_in_one_line(query):
    try:
        parsed = parse_query(query)
    except UsageError:
        return
    assert bool(parsed.text.strip()) == bool(query.strip())
