"""What people type into the search box: plain words, "said words", -without, prefix*."""

from __future__ import annotations

import re
from dataclasses import dataclass

from indexer.errors import UsageError
from indexer.store.keywords import any_of, phrase

_HELP = 'write "words that must occur", -word or -"words" to exclude, begin* for how a word begins'
_TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "„": '"'})
_TERM = re.compile(r'(?P<minus>-?)(?:"(?P<quoted>[^"]*)"(?P<star1>\*?)|(?P<word>\S+))')
_PREFIX = re.compile(r"\w+\*")


@dataclass(frozen=True, kw_only=True)
class ParsedQuery:
    """A query, taken apart.

    Attributes:
        text: what is looked for with vectors: the plain and the required words in their order.
        plain: the plain words only.
        required: expressions of `indexer.store.keywords`, all of which a moment must fulfil.
        excluded: expressions of which it must fulfil none.
    """

    text: str
    plain: str
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def highlighted(self) -> str | None:
        """What is required as one expression, for snippets."""
        return any_of(self.required) if self.required else None


def parse_query(query: str) -> ParsedQuery:
    """Takes a query apart.

    A quote opens at the start of a word only, so that 5" stays plain; a minus alone, or within a word, is plain too.

    Raises:
        UsageError: a quote is not closed or holds no word, or all that is said is what to leave out.
    """
    text: list[str] = []
    plain: list[str] = []
    required: list[str] = []
    excluded: list[str] = []
    for term in _TERM.finditer(query.translate(_TYPOGRAPHIC)):
        words, is_prefix, is_expression = _words(term, query)
        if not is_expression:
            plain.append(words)
        elif not re.search(r"\w", words.replace("_", " ")):
            raise UsageError(f"there is no word in {term[0]!r} of the query {query!r}: {_HELP}")
        else:
            (excluded if term["minus"] else required).append(phrase(words, is_prefix=is_prefix))
        if not (is_expression and term["minus"]):
            text.append(words)
    if excluded and not text:
        raise UsageError(f"the query {query!r} says only what to leave out: add what to look for; {_HELP}")
    return ParsedQuery(text=" ".join(text), plain=" ".join(plain), required=tuple(required), excluded=tuple(excluded))


def _words(term: re.Match[str], query: str) -> tuple[str, bool, bool]:
    """The words of a term, whether the last may go on, and whether it is more than plain words."""
    if term["quoted"] is not None:
        return term["quoted"], bool(term["star1"]), True
    word = term["word"]
    if word.startswith('"'):
        raise UsageError(f"a quote is not closed in the query {query!r}: {_HELP}")
    is_prefix = _PREFIX.fullmatch(word) is not None
    is_excluded = bool(term["minus"]) and re.match(r"\w", word) is not None
    if is_prefix or is_excluded:
        return word.removesuffix("*") if is_prefix else word, is_prefix, True
    return term["minus"] + word, False, False
