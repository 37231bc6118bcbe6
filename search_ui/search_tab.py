"""The tab "Search": a question in, the moments that fit it best out."""

from __future__ import annotations

import streamlit as st

from indexer.errors import UsageError
from indexer.query.calibration import MATCH_CONFIDENCE
from indexer.query.filters import Filters
from indexer.query.results import SearchResult
from search_ui import wording
from search_ui.cards import show_cards, stop_playing
from search_ui.collection import Collection, search

_EXAMPLE = "a dog on a skateboard"
_RESULT_COUNTS = (12, 24, 48, 96)


def show_search(collection: Collection) -> None:
    """Shows the question and its answer. `?q=` in the address asks at once, so that searches can be linked."""
    query, k, only_confident = _ask()
    try:
        filters = _filters()
        if not query:
            st.caption(
                f"Say what the moment shows, in English: “{_EXAMPLE}”. "
                '`"quoted words"` must have been said, `-word` excludes, `begin*` is how a word begins.'
            )
            return
        answer = search(collection, query, k, filters)
    except UsageError as error:  # what was typed is no query, or no filter
        st.error(wording.escaped(str(error)))
        return
    _show_answer(collection, answer, only_confident)


def _ask() -> tuple[str, int, bool]:
    if "query" not in st.session_state:
        st.session_state["query"] = st.query_params.get("q", "")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        query = st.text_input("What are you looking for?", key="query", placeholder=_EXAMPLE, on_change=stop_playing)
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


def _filters() -> Filters:
    """Raises UsageError where what was typed is no filter."""
    with st.expander("Filters", icon=":material/filter_list:"):
        first, second = st.columns(2)
        video = first.text_input("Videos", placeholder="*.mp4, trips/*", help="Fits the file name, or the path.")
        label = first.text_input("Label", placeholder="seashore>=0.3", help="A class that moments are labelled with.")
        speech = first.selectbox("Speech", ("any", "with", "without"))
        where = first.text_input("Condition", placeholder="height>=720", help="On a column of the table of videos.")
        min_duration_s = second.number_input("Shortest video, seconds", min_value=0.0, value=None)
        max_duration_s = second.number_input("Longest video, seconds", min_value=0.0, value=None)
        after = second.date_input("Modified from", value=None)
        before = second.date_input("Modified before", value=None)
    return Filters(
        video=video.strip() or None,
        labels=(label,) if label.strip() else (),
        has_speech={"with": True, "without": False}.get(speech),
        where=(where,) if where.strip() else (),
        min_duration_s=min_duration_s,
        max_duration_s=max_duration_s,
        modified_after=after.isoformat() if after else None,
        modified_before=before.isoformat() if before else None,
    )


def _show_answer(collection: Collection, answer: SearchResult, only_confident: bool) -> None:
    moments = answer.results
    if only_confident:
        moments = [moment for moment in moments if moment.confidence >= MATCH_CONFIDENCE]
    if answer.matched:
        sure = sum(moment.confidence >= MATCH_CONFIDENCE for moment in moments)
        st.markdown(f"**{sure} confident** of {len(moments)} moments, best first:")
    elif moments:
        st.warning("No confident match. Nearest moments:", icon=":material/search_off:")
    else:
        st.warning("No confident match.", icon=":material/search_off:")
    show_cards(collection, moments)
