"""The tab "Classify": any list of labels in, a table of all moments out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from indexer.query.inputs import check_labels
from indexer.query.results import NONE_OF_THESE, ClassifiedMoment
from search_ui import wording
from search_ui.collection import Collection, classify

_MAX_ROWS = 1000  # more make the browser slow; the download has them all
_MAX_COLUMNS = 20
_LABELS = "labels asked for"  # session state


def show_classify(collection: Collection) -> None:
    """Shows the form, and the table for the labels that were last asked for."""
    with st.form("classify", border=False):
        text = st.text_area("Labels, separated by commas", placeholder="cooking, surfing, a cat, a street with cars")
        if st.form_submit_button("Classify", type="primary"):
            st.session_state[_LABELS] = text
    if _LABELS not in st.session_state:
        st.caption(
            "Every moment is compared with every label, and none of them may fit. Nothing has to be trained for it."
        )
        return
    labels = check_labels(st.session_state[_LABELS].replace("\n", ",").split(","))
    moments = classify(collection, tuple(labels))
    counts = Counter(moment.answer for moment in moments)
    _show_summary(labels, counts, len(moments))
    shown = sorted(labels, key=lambda label: -counts[label])[:_MAX_COLUMNS]
    _show_table(moments[:_MAX_ROWS], shown)
    if len(moments) > _MAX_ROWS or len(labels) > _MAX_COLUMNS:
        st.caption(
            f"Shown: {len(moments[:_MAX_ROWS]):,} of {len(moments):,} moments, {len(shown)} of {len(labels)} labels."
        )
    st.download_button(
        "Download CSV",
        lambda: csv_of(moments, labels),  # only when it is asked for
        "labels.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _show_summary(labels: Sequence[str], counts: Counter[str | None], num_moments: int) -> None:
    """How many moments each label fits best, and last how many none of them fits."""
    ranked = [*sorted(labels, key=lambda label: -counts[label]), None]
    table = pd.DataFrame(
        {
            "label": [NONE_OF_THESE if label is None else wording.plain(label) for label in ranked],
            "moments": [counts[label] for label in ranked],
            "share": [100 * counts[label] / num_moments for label in ranked],
        }
    )
    columns = {
        "label": st.column_config.TextColumn("Label"),
        "moments": st.column_config.NumberColumn("Moments", width="small", help="That it fits best."),
        "share": _bar("Share"),
    }
    st.dataframe(table, column_config=columns, hide_index=True, key="summary")


def _show_table(moments: Sequence[ClassifiedMoment], labels: Sequence[str]) -> None:
    scores = [{label.label: label.score for label in moment.labels} for moment in moments]
    table = pd.DataFrame(
        {
            "video": [wording.file_name(moment.video) for moment in moments],
            "moment": [wording.span(moment.start_s, moment.end_s) for moment in moments],
            "best": [wording.plain(moment.answer or NONE_OF_THESE) for moment in moments],
            "none": [100 * moment.none_of_these for moment in moments],
            # Numbered, because a label may be called "video".
            **{f"score_{i}": [100 * score[label] for score in scores] for i, label in enumerate(labels)},
        }
    )
    columns = {
        "video": st.column_config.TextColumn("Video"),
        "moment": st.column_config.TextColumn("Moment", width="small"),
        "best": st.column_config.TextColumn("Best label"),
        "none": _bar("None of these"),
    }
    for i, label in enumerate(labels):
        columns[f"score_{i}"] = _bar(wording.plain(label))
    st.dataframe(table, column_config=columns, hide_index=True, key="moments")


def _bar(title: str) -> Any:
    """Column of percentages, drawn as bars."""
    return st.column_config.ProgressColumn(title, format="%.0f%%", min_value=0, max_value=100)


def csv_of(moments: Sequence[ClassifiedMoment], labels: Sequence[str]) -> bytes:
    """One line a moment: video (URI), start_s, end_s, best label (or "none of these"), none_of_these, then the score of
    each label in the order asked.
    """
    rows = []
    for moment in moments:
        scores = {label.label: label.score for label in moment.labels}
        best, none = moment.answer or NONE_OF_THESE, moment.none_of_these
        rows.append((moment.video, moment.start_s, moment.end_s, best, none, *(scores[label] for label in labels)))
    columns = ["video", "start_s", "end_s", "best_label", "none_of_these", *(f"score: {label}" for label in labels)]
    table = pd.DataFrame(rows, columns=columns)
    return table.to_csv(index=False, float_format="%.6f").encode("utf-8", "replace")
