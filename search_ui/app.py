"""The search page. Run by `streamlit run search_ui/app.py -- INDEX`; `videobert ui INDEX` does that."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from indexer.errors import UsageError, VideoBertSearchError
from search_ui import wording
from search_ui.classify_tab import show_classify
from search_ui.collection import open_collection
from search_ui.search_tab import show_search

_STYLE = Path(__file__).with_name("style.css")
_ICON = Path(__file__).with_name("icon.svg")


def main() -> None:
    """Draws the page; Streamlit calls it again at every click."""
    st.set_page_config(page_title="VideoBERT Search", page_icon=str(_ICON), layout="wide")
    st.html(_STYLE)
    st.title("VideoBERT Search", anchor=False)
    _or_error(_show_page)


def _show_page() -> None:
    path = _index_path()
    collection = open_collection(path)
    collection.refresh()
    index = collection.index
    if index.num_segments == 0:
        st.info("This index is still empty. Put videos into it, then come back: the page sees them by itself.")
        st.code(f"videobert index FOLDER_OF_VIDEOS --into {shlex.quote(wording.plain(path))}", language="bash")
        return
    videos, moments = wording.amount(index.num_videos, "video"), wording.amount(index.num_segments, "moment")
    st.caption(f"{videos} · {moments} · {wording.length(index.video_s)} of video")
    search_tab, classify_tab = st.tabs(["Search", "Classify"])
    with search_tab:
        _or_error(lambda: show_search(collection))
    with classify_tab:
        _or_error(lambda: show_classify(collection))


def _index_path() -> str:
    if len(sys.argv) != 2:
        raise UsageError("the page needs the folder of one index: streamlit run search_ui/app.py -- INDEX")
    return sys.argv[1]


def _or_error(show: Callable[[], None]) -> None:
    """An error of ours is one line on the page, not a traceback."""
    try:
        show()
    except VideoBertSearchError as error:
        st.error(wording.escaped(str(error)), icon=":material/error:")


if __name__ == "__main__":
    main()
