"""Parts of a file in memory, by HTTP's Range header: how players seek, and without which Safari plays nothing.

Source: RFC 9110, sections 13 and 14. One range at a time: several are answered by the whole file, as is allowed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from starlette.responses import Response

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE | re.ASCII)


def entity_tag(data: bytes) -> str:
    """The same for equal content, in whichever process."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def ranged_answer(
    data: bytes, tag: str, asked: Mapping[str, str], media_type: str, headers: Mapping[str, str]
) -> Response:
    """The whole of some bytes, the part that was asked for (206), or none (304, 416).

    Args:
        data: the file.
        tag: its entity tag.
        asked: headers of the request, their names in lower case.
        media_type: of the file.
        headers: further ones for the answer.
    """
    common = {**headers, "Accept-Ranges": "bytes", "ETag": tag}
    if _names(asked.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=common)
    is_current = asked.get("if-range", tag) == tag  # a date says less than a tag, and is no match
    part = _part(asked["range"], len(data)) if "range" in asked and is_current else None
    if part is None:
        return Response(data, 200, common, media_type)
    start, end = part
    if start >= end:
        return Response(status_code=416, headers={**common, "Content-Range": f"bytes */{len(data)}"})
    common["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], 206, common, media_type)


def _names(condition: str, tag: str) -> bool:
    tags = [one.strip().removeprefix("W/") for one in condition.split(",")]
    return tag in tags or tags == ["*"]


def _part(text: str, size: int) -> tuple[int, int] | None:
    """The half-open part [start, end), empty where none of it is there; None if the header is not for us."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
