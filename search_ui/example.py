"""An example instead of a text: a file that is uploaded, or a moment of the index."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import streamlit as st

from indexer.query.results import Moment
from search_ui import wording
from search_ui.uploads import MAX_EXAMPLE_MB, kept

_MOMENT = "like moment"  # session state: (segment id, what it is called) of a card's "More like this"


class Example(NamedTuple):
    """What moments shall be like: `segment_id` or the path of a file; and its name."""

    what: int | str
    name: str


def ask_example() -> Example | None:
    """Draws the form; None where no example is given. A moment that was chosen on a card comes before a file."""
    with st.expander("Search by example", icon=":material/image_search:"):
        upload = st.file_uploader(
            "An image, or a video that is taken as a whole",
            max_upload_size=MAX_EXAMPLE_MB,
            key="example",
            on_change=forget_moment,
        )
    if (chosen := st.session_state.get(_MOMENT)) is not None:
        return Example(*chosen)
    return None if upload is None else Example(str(kept(upload)), Path(upload.name).name)


def show_example(example: Example) -> None:
    """Says what is looked for, and offers the way back from a moment to the text."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Moments like **{wording.escaped(example.name)}**", width="content")
        if isinstance(example.what, int):
            st.button("Back to the search", icon=":material/arrow_back:", key="forget", on_click=forget_moment)
        else:
            st.caption("Take the file away to search by text again.", width="content")


def show_button(moment: Moment) -> None:
    """The button of a card that asks for more like it."""
    name = f"{wording.file_name(moment.video)} {wording.span(moment.start_s, moment.end_s)}"
    st.button(
        "More like this",
        key=f"like-{moment.rank}",
        icon=":material/image_search:",
        width="stretch",
        on_click=st.session_state.update,
        args=({_MOMENT: (moment.segment_id, name)},),
    )


def forget_moment() -> None:
    """Back to the text, or to the file."""
    st.session_state.pop(_MOMENT, None)
