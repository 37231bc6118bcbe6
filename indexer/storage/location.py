"""From what people type to where it lies."""

from __future__ import annotations

import re
from pathlib import Path

from indexer.errors import UsageError
from indexer.storage.objects import ObjectPath

Location = Path | ObjectPath

_OBJECT = re.compile(r"s3://", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_object_uri(text: str) -> bool:
    return _OBJECT.match(text) is not None


def location(text: str | Location) -> Location:
    """A path as it is; `s3://bucket/key` as an `ObjectPath`. Keys are taken literally: no percent codes, no `..`.

    Raises:
        UsageError: the URI names no bucket, holds credentials, or a part of its key that storage libraries refuse.
    """
    if not isinstance(text, str):
        return text
    if not is_object_uri(text):
        return Path(text)
    bucket, _, key = text[len("s3://") :].partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            "an s3:// address must not hold credentials or a port: write s3://BUCKET/KEY, put the credentials into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the server into AWS_ENDPOINT_URL"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"an s3:// address must be s3://BUCKET/KEY with the name of a bucket, got {text!r}")
    key = key.strip("/")
    if key and any(part in ("", ".", "..") or not part.isprintable() for part in key.split("/")):
        raise UsageError(
            f"the parts of an s3:// address must not be empty, '.', '..' or hold control characters, got {text!r}"
        )
    return ObjectPath(bucket, key)
