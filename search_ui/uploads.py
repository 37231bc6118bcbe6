"""Files that visitors hand to the page, kept on disk for as long as it runs, because the index reads files."""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

MAX_EXAMPLE_MB, MAX_TABLE_MB = 200, 50
_MAX_NAME_CHARS = 60


@st.cache_resource
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="videobert-page-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def kept(upload: Any) -> Path:
    """Where an uploaded file lies: the same content and name always at the same place, so that answers are remembered.

    Args:
        upload: what `st.file_uploader` gives: a name, and `getvalue()`.
    """
    content = upload.getvalue()
    folder = _folder() / hashlib.sha256(content).hexdigest()[:16]
    path = folder / _safe(upload.name)
    if not path.exists():
        folder.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{hashlib.sha256(upload.name.encode()).hexdigest()[:8]}.tmp")
        temporary.write_bytes(content)
        temporary.rename(path)
    return path


def _safe(name: str) -> str:
    """A name without folders, and with nothing in it that means something elsewhere; its extension stays."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.-]", "_", last)[-_MAX_NAME_CHARS:].lstrip(".-") or "upload"
