"""The tab "Search": a question in, the moments that fit it best out."""

from __future__ import annotations

import streamlit as st

from indexer.errors import UsageError, VideoError
from indexer.query.calibration import MATCH_CONFIDENCE
from indexer.query.results import SearchResult
from search_ui import wording
from search_ui.cards import show_cards, stop_playing
from search_ui.collection import Collection, search, search_like
from search_ui.example import ask_example, forget_moment, show_example
from search_ui.filter_form import ask_filters

_EXAMPLE = "a dog on a skateboard"
_RESULT_COUNTS = (12, 24, 48, 96)
_NOTHING = ":material/search_off:"


def show_search(collection: Collection) -> None:
    """Shows the question and its answer. `?q=` in the address asks at once, so that searches can be linked."""
    query, k, only_confident = _ask()
    example = ask_example()
    try:
        filters, diversity = ask_filters()
        if example is not None:
            show_example(example)
            answer = search_like(collection, example.what, k, filters, diversity)
        elif query:
            answer = search(collection, query, k, filters, diversity)
        else:
            st.caption(
                f"Say what the moment shows, in English: “{_EXAMPLE}”. "
                '`"quoted words"` must have been said, `-word` excludes, `begin*` is how a word begins.'
            )
            return
    except (UsageError, VideoError) as error:  # what was given is no query, no filter, no example
        st.error(wording.escaped(str(error)))
        return
    _show_answer(collection, answer, only_confident)


def _ask() -> tuple[str, int, bool]:
    if "query" not in st.session_state:
        st.session_state["query"] = st.query_params.get("q", "")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        query = st.text_input("What are you looking for?", key="query", placeholder=_EXAMPLE, on_change=_asked_anew)
        st.button("Search", type="primary", icon=":material/search:")
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        k = st.selectbox(
            "Results", _RESULT_COUNTS, format_func="{} results".format, label_visibility="collapsed", width=150
        )
        only_confident = st.toggle("Only confident matches", help="Leaves out what no better than chance would find.")
    query = query.strip()
    if query:
        st.query_params["q"] = query
    else:
        st.query_params.pop("q", None)
    return query, k, only_confident


def _asked_anew() -> None:
    stop_playing()
    forget_moment()


def _show_answer(collection: Collection, answer: SearchResult, only_confident: bool) -> None:
    moments = answer.results
    if only_confident:
        moments = [moment for moment in moments if moment.confidence >= MATCH_CONFIDENCE]
    if answer.matched and moments:
        sure = sum(moment.confidence >= MATCH_CONFIDENCE for moment in moments)
        st.markdown(f"**{sure} confident** of {len(moments)} moments, best first:")
    elif moments:
        st.warning("No confident match. Nearest moments:", icon=_NOTHING)
    elif answer.results:
        st.warning(
            "No confident match. Switch “Only confident matches” off to see what comes nearest.",
            icon=_NOTHING,
        )
    else:
        st.warning("Nothing is left: no moment passes the filters and has the words asked for.", icon=_NOTHING)
    show_cards(collection, moments)
