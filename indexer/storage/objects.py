"""An object in a bucket, with the methods of `pathlib.Path` that this project uses."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.storage.s3 import open_bucket, request

if TYPE_CHECKING:
    from obstore.store import S3Store

_KEYS_PER_REQUEST = 1000
_LAST_CHARACTER = "\U0010ffff"
# Larger files go up in parts of this size, several at once, and appear when the last one has arrived.
_PART_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """What storage says of an object without sending it, under the names of `os.stat_result`.

    Attributes:
        st_size: bytes.
        st_mtime_ns: when it was written, whole seconds, in ns since 1970.
        etag: changes when the content does. Of an upload in one piece it is the content's MD5.
    """

    st_size: int
    st_mtime_ns: int
    etag: str

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9

    @classmethod
    def of(cls, meta: Any) -> ObjectFacts:
        # A listing has fractions of a second where the header of a single object has none.
        return cls(
            st_size=meta["size"],
            st_mtime_ns=int(meta["last_modified"].timestamp()) * 1_000_000_000,
            etag=(meta["e_tag"] or "").removeprefix("W/").strip('"'),
        )


@dataclass(frozen=True, order=True)
class ObjectPath:
    """`s3://bucket/key`. Folders do not exist by themselves: one is there as long as an object below it is.

    Every method that reaches the storage raises what `s3.request` says.

    Attributes:
        bucket: its name.
        key: parts joined by "/", taken literally; "" is the bucket itself.
        facts: what a listing said of it, so that it need not be asked again.
    """

    bucket: str
    key: str
    facts: ObjectFacts | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def absolute(self) -> ObjectPath:
        return self

    def _store(self) -> S3Store:
        return open_bucket(self.bucket)

    def stat(self) -> ObjectFacts:
        import obstore

        if self.facts is not None:
            return self.facts
        return ObjectFacts.of(request(str(self), lambda: obstore.head(self._store(), self.key)))

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        try:
            return bool(self.key) and self.stat() is not None
        except FileNotFoundError:
            return False

    def is_file(self) -> bool:
        return self.exists()

    def is_dir(self) -> bool:
        """Whether any object lies below."""
        return next(self.below(), None) is not None

    def below(self) -> Iterator[ObjectPath]:
        """All objects below, at any depth, in order of their keys."""
        for meta in self._listed():
            if meta["path"] != self.key:
                yield ObjectPath(self.bucket, meta["path"], ObjectFacts.of(meta))

    def _listed(self, after: str | None = None) -> Iterator[Any]:
        """What the storage says of all objects below, in order of their keys; from the first one after a key."""
        import obstore

        pages: Iterator[Any] | None = None

        def next_page() -> Any:
            nonlocal pages
            if pages is None:
                pages = iter(obstore.list(self._store(), self.key or None, offset=after, chunk_size=_KEYS_PER_REQUEST))
            going_on, pages = pages, None  # after an error a new listing goes on where this one was
            page = next(going_on, None)
            pages = going_on
            return page

        while (page := request(str(self), next_page)) is not None:
            yield from page
            after = page[-1]["path"]

    def iterdir(self) -> Iterator[ObjectPath]:
        """Objects and folders directly below."""
        import obstore

        found = request(str(self), lambda: obstore.list_with_delimiter(self._store(), self.key or None))
        for meta in found["objects"]:
            if meta["path"] != self.key:
                yield ObjectPath(self.bucket, meta["path"], ObjectFacts.of(meta))
        yield from (ObjectPath(self.bucket, prefix) for prefix in found["common_prefixes"])

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Entries that match; the last part of the pattern may hold wildcards."""
        folder, _, name = pattern.rpartition("/")
        entries = (self / folder if folder else self).iterdir()
        return (entry for entry in entries if fnmatch.fnmatchcase(entry.name, name))

    def beginning(self, start: str) -> list[ObjectPath]:
        """Objects directly below whose names begin so, in order."""
        first = (self / start).key
        found: list[ObjectPath] = []
        after: str | None = first  # a listing starts after any key, but takes only whole folders for a prefix
        while after is not None:
            after = self._collect(first, after, found)
        return found

    def _collect(self, first: str, after: str, found: list[ObjectPath]) -> str | None:
        """Adds objects up to the end, or to a folder among them: then returns the key after which to go on."""
        skip = len(self.key) + 1 if self.key else 0
        for meta in self._listed(after):
            if not meta["path"].startswith(first):
                return None
            name, slash, _ = meta["path"][skip:].partition("/")
            if slash:
                return f"{(self / name).key}/{_LAST_CHARACTER}"
            found.append(ObjectPath(self.bucket, meta["path"], ObjectFacts.of(meta)))
        return None

    def read_bytes(self) -> bytes:
        import obstore

        return request(str(self), lambda: bytes(obstore.get(self._store(), self.key).bytes()))

    def read_range(self, start: int, end: int, etag: str) -> bytes:
        """Bytes [start, end) of the object as long as it has this ETag."""
        import obstore

        options: Any = {"range": (start, end)} | ({"if_match": f'"{etag}"'} if etag else {})
        return request(str(self), lambda: bytes(obstore.get(self._store(), self.key, options=options).bytes()))

    def write_bytes(self, data: bytes, *, unless_exists: bool = False) -> None:
        """Puts the object, whole or not at all."""
        import obstore

        mode: Any = "create" if unless_exists else "overwrite"
        request(str(self), lambda: obstore.put(self._store(), self.key, data, mode=mode, use_multipart=False))

    def upload(self, file: Path) -> None:
        """Puts a file of this machine, whole or not at all."""
        import obstore

        request(str(self), lambda: obstore.put(self._store(), self.key, file, chunk_size=_PART_BYTES))

    def download(self, file: Path) -> None:
        """Writes the object to a file of this machine."""
        import obstore

        def fetch() -> None:
            with open(file, "wb") as target:
                for part in obstore.get(self._store(), self.key).stream(min_chunk_size=_PART_BYTES):
                    target.write(part)

        request(str(self), fetch)

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object. S3 does not say whether there was one, so `missing_ok` makes no difference."""
        import obstore

        request(str(self), lambda: obstore.delete(self._store(), self.key))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are only names."""
