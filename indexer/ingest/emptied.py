"""Videos that vanished with all their folder held: deleted, or on a disk that is not mounted now?"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

from indexer.ingest.paths import uri_to_path
from indexer.storage.location import is_object_uri


def in_empty_folders(uris: Iterable[str]) -> dict[str, str]:
    """Those of some vanished videos whose folder is there and empty, as a mount point is while nothing is mounted.

    Where the folder has gone too, the nearest one above that is there counts: `disk` for `disk/2024/a.mp4`. A bucket
    has no empty folders.

    Returns:
        The folder by the video's URI.
    """
    nearest = functools.cache(_nearest_if_empty)
    folders = {uri: nearest(os.path.dirname(uri_to_path(uri))) for uri in uris if not is_object_uri(uri)}
    return {uri: folder for uri, folder in folders.items() if folder is not None}


def _nearest_if_empty(folder: str) -> str | None:
    try:
        with os.scandir(folder) as entries:
            return folder if next(entries, None) is None else None
    except (FileNotFoundError, NotADirectoryError):
        above = os.path.dirname(folder)
        return _nearest_if_empty(above) if above != folder else None
    except OSError:
        return None
