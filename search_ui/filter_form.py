"""The form "Filters" of the tab "Search": which moments are looked at."""

from __future__ import annotations

import streamlit as st

from indexer.query.diversity import USUAL_PER_VIDEO, Diversity
from indexer.query.filters import Filters
from search_ui.uploads import MAX_TABLE_MB, kept


def ask_filters() -> tuple[Filters, Diversity]:
    """Draws the form. Raises UsageError where what was typed is no filter."""
    with st.expander("Filters", icon=":material/filter_list:"):
        first, second = st.columns(2)
        with first:
            video = st.text_input("Videos", placeholder="*.mp4, trips/*", help="Fits the file name, or the path.")
            in_video = st.text_input("Within one video", placeholder="match-03.mp4")
            label = st.text_input("Label", placeholder="seashore>=0.3", help="A class that moments are labelled with.")
            speech = st.selectbox("Speech", ("any", "with", "without"))
            language = st.text_input("Language", placeholder="en, de", help="Any of these, as two letters.")
            min_height = st.number_input("Least height, pixels", min_value=0, value=None)
        with second:
            min_duration_s = st.number_input("Shortest video, seconds", min_value=0.0, value=None)
            max_duration_s = st.number_input("Longest video, seconds", min_value=0.0, value=None)
            after = st.date_input("Modified from", value=None)
            before = st.date_input("Modified before", value=None)
            per_video = st.number_input(
                "Most moments of one video",
                min_value=1,
                value=None,
                help=f"Left empty: {USUAL_PER_VIDEO}, and more only where other videos have nothing left.",
            )
        where, metadata = _ask_columns()
        collapse = st.checkbox("Show near-duplicates as one", value=True)
    filters = Filters(
        video=video.strip() or None,
        in_video=in_video.strip() or None,
        labels=(label,) if label.strip() else (),
        has_speech={"with": True, "without": False}.get(speech),
        language=language,
        where=where,
        metadata=metadata,
        min_height=min_height,
        min_duration_s=min_duration_s,
        max_duration_s=max_duration_s,
        modified_after=after.isoformat() if after else None,
        modified_before=before.isoformat() if before else None,
    )
    return filters, Diversity(per_video=per_video, collapse=collapse)


def _ask_columns() -> tuple[tuple[str, ...], str | None]:
    """Conditions, and the path of a table that they may be about; a table without a condition changes nothing."""
    conditions = st.text_input(
        "Conditions, separated by commas",
        placeholder="height>=720, camera=north",
        help="On columns of the table of videos, or of your own.",
    )
    table = st.file_uploader(
        "Your own table, joined by its column path",
        type=["csv", "tsv", "parquet"],
        max_upload_size=MAX_TABLE_MB,
        key="metadata",
    )
    where = tuple(part.strip() for part in conditions.split(",") if part.strip())
    if table is None:
        return where, None
    if not where:
        st.caption("The table filters nothing yet: write a condition on one of its columns.")
        return where, None
    return where, str(kept(table))
