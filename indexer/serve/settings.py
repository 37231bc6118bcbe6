"""How much a service takes on at once, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits of one service (of each replica).

    Attributes:
        metadata: path of the table that conditions of requests may name columns of; requests never name a file.
        allowed_hosts: names under which it may be asked, without port; None is any. A page in a browser can make its
            own name point to this machine, and would then read the answers: so a service on localhost names itself.
        refresh_s: how often it looks for a newer version of the index, seconds; in a bucket, where each look costs
            some requests, every `bucket_refresh_s`.
        max_query_chars: length of a query, and of a list of labels.
        max_body_bytes: of a request.
        max_batch: queries that are encoded and searched together.
        max_waiting: searches that may wait; more are refused. Likewise for each other kind of request.
        max_labelled: moments that one request may classify.
        max_clips: clips that are cut at the same time.
        max_waiting_clips: clips that may wait.
        clip_timeout_s: after which cutting a clip is given up, seconds.
        max_clip_s: longest clip, seconds.
        clip_cache_bytes: clips that are kept in memory, so that a player that asks for one in parts has it cut once.
    """

    metadata: str | None = None
    allowed_hosts: tuple[str, ...] | None = None
    refresh_s: float = 1.0
    bucket_refresh_s: float = 10.0
    max_query_chars: int = 2_000
    max_body_bytes: int = 64 * 1024
    max_batch: int = 32
    max_waiting: int = 256
    max_labelled: int = 10_000
    max_clips: int = 2
    max_waiting_clips: int = 8
    clip_timeout_s: float = 60.0
    max_clip_s: float = 60.0
    clip_cache_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        for name in ("refresh_s", "bucket_refresh_s", "max_batch", "max_waiting", "max_clips"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)!r}")
