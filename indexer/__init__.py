"""VideoBERT Search: find, classify and ask about moments of videos in plain text.

from indexer import VideoIndex

index = VideoIndex.open("demo-data/index")
index.search("a dog on a skateboard", k=5)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.query.video_index import VideoIndex as VideoIndex

__version__ = "0.1.0"
__all__ = ["VideoIndex", "__version__"]


def __getattr__(name: str) -> Any:
    """Loads `VideoIndex` when it is first asked for: `videobert --help` should not wait for it."""
    if name == "VideoIndex":
        from indexer.query.video_index import VideoIndex

        return VideoIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
