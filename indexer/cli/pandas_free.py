"""pyarrow without pandas, for verbs that should answer at once."""

from __future__ import annotations

import sys


class _NoPandas:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError("not now")


def leave_pandas_out() -> None:
    """Keeps pyarrow from loading pandas, which takes 0.3 s, longer than opening an index.

    It does so at the first Python value it converts, in case that some value is one of pandas', and only if it is
    installed. Here none is. `to_pandas` still loads it, and so does whoever imports it.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow

    sys.meta_path.insert(0, _NoPandas)
    try:
        pyarrow.scalar(0)  # looks for pandas, and remembers that there is none
    finally:
        sys.meta_path.remove(_NoPandas)
