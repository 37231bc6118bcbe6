"""The moments found, as cards: picture, file name, time, confidence, labels, and a player."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from indexer.errors import VideoBertSearchError
from indexer.query.results import Moment
from search_ui import example, wording
from search_ui.collection import Collection, clip, thumbnail

_NUM_LABELS = 3
_PLAYING = "playing"  # session state: (segment id, start) of the one card whose clip is shown


def show_cards(collection: Collection, moments: Sequence[Moment]) -> None:
    """Shows the moments in their order."""
    with st.container(key="results"):
        for moment in moments:
            with st.container(border=True, key=f"card-{moment.rank}"):
                _show_card(collection, moment)


def stop_playing() -> None:
    """Closes the player, if one is open."""
    st.session_state.pop(_PLAYING, None)


def _show_card(collection: Collection, moment: Moment) -> None:
    playing = st.session_state.get(_PLAYING) == _key(moment)
    with st.container(key=f"picture-{moment.rank}"):
        if playing:
            _show_clip(collection, moment)
        else:
            _show_thumbnail(collection, moment)
    # Names and speech come from strangers: `st.text` reads neither HTML nor Markdown.
    with st.container(key=f"name-{moment.rank}"):
        st.text(wording.file_name(moment.video))
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        st.caption(f"{wording.span(moment.start_s, moment.end_s)} · score {moment.score:.2f}", width="content")
        st.markdown(wording.confidence_badge(moment.confidence), width="content")
    if moment.labels:
        st.markdown(wording.label_chips((label.label, label.score) for label in moment.labels[:_NUM_LABELS]))
    if moment.snippet and moment.transcript:
        with st.container(key=f"quote-{moment.rank}"):
            st.markdown(f"“{wording.highlighted(moment.snippet)}”")
    elif moment.transcript:
        with st.container(key=f"quote-{moment.rank}"):
            st.text(f"“{wording.plain(moment.transcript)}”")
    if moment.num_alike:
        _show_alike(moment)
    with st.container(key=f"buttons-{moment.rank}", horizontal=True, gap="small"):
        _show_button(moment, playing)
        example.show_button(moment)


def _show_alike(moment: Moment) -> None:
    with st.popover(f"+{moment.num_alike} alike", icon=":material/content_copy:"):
        for alike in moment.alike:
            st.text(f"{wording.file_name(alike.video)}  {wording.span(alike.start_s, alike.end_s)}")
        if moment.num_alike > len(moment.alike):
            st.caption(f"and {moment.num_alike - len(moment.alike):,} more")


def _key(moment: Moment) -> tuple[int, float]:
    return moment.segment_id, moment.start_s


def _show_thumbnail(collection: Collection, moment: Moment) -> None:
    try:
        picture = thumbnail(collection, moment.segment_id)
    except VideoBertSearchError:  # it has just vanished from the index; the next search will say so
        picture = None
    if picture is None:
        st.caption("No preview")
    else:
        st.image(picture, width="stretch")


def _show_clip(collection: Collection, moment: Moment) -> None:
    try:
        st.video(clip(collection, moment.video, moment.start_s, moment.end_s), format="video/mp4", autoplay=True)
    except VideoBertSearchError as error:
        st.error(wording.escaped(str(error)))


def _show_button(moment: Moment, playing: bool) -> None:
    if playing:
        st.button("Close", key=f"close-{moment.rank}", width="stretch", on_click=stop_playing)
        return
    st.button(
        "Play",
        key=f"play-{moment.rank}",
        icon=":material/play_arrow:",
        width="stretch",
        on_click=st.session_state.update,
        args=({_PLAYING: _key(moment)},),
    )
