"""Clips are cut in a child process: a file that makes FFmpeg hang or crash must not take the service along.

service → {"path", "start_s", "end_s", "max_length_s"} → child → MP4, or one line that says what is wrong
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from indexer.errors import UsageError, VideoBertSearchError, VideoError
from indexer.serve.settings import ServeSettings

_WRONG, _UNREADABLE = 2, 3
_MEMORY_BYTES = 4 << 30


def cut_clip(path: str, start_s: float, end_s: float, settings: ServeSettings) -> bytes:
    """As `make_clip`.

    Args:
        path: of a video of the ledger, or its s3:// URI; never from a request.

    Raises:
        UsageError: the span is empty, not a number, or too long.
        VideoError: the video cannot be read, or not in time.
    """
    if not end_s - start_s <= settings.max_clip_s:
        raise UsageError(f"a clip is at most {settings.max_clip_s:g} s long, got {start_s!r} to {end_s!r}")
    job = json.dumps({"path": path, "start_s": start_s, "end_s": end_s, "max_length_s": settings.max_clip_s})
    command = [sys.executable, "-m", "indexer.serve.clips"]
    try:
        done = subprocess.run(
            command,
            input=job.encode(),
            capture_output=True,
            timeout=settings.clip_timeout_s,
            check=False,
            start_new_session=True,  # Ctrl-C is for the service, which lets its clips finish
        )
    except subprocess.TimeoutExpired as error:
        raise VideoError("decode", "Timeout", f"the clip took more than {settings.clip_timeout_s:g} s") from error
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["the clip could not be cut"]
    if done.returncode == _WRONG:
        raise UsageError(lines[-1])
    if done.returncode == _UNREADABLE:
        raise VideoError("decode", "Unreadable", lines[-1])
    raise VideoError("decode", "Crashed", "the decoder crashed on this video")


def _main() -> int:
    """The child: reads a job, writes the clip."""
    from indexer.query.clips import make_clip

    _limit_memory()
    job = json.load(sys.stdin)
    try:
        clip = make_clip(job["path"], job["start_s"], job["end_s"], max_length_s=job["max_length_s"])
    except UsageError as error:
        print(error, file=sys.stderr)
        return _WRONG
    except (VideoBertSearchError, OSError, MemoryError) as error:
        text = error.message if isinstance(error, VideoError) else str(error)
        print(" ".join(text.split()), file=sys.stderr)
        return _UNREADABLE
    sys.stdout.buffer.write(clip)
    return 0


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere RLIMIT_AS is refused or means nothing
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    sys.exit(_main())
