"""Every error that this package raises on purpose.

    VideoBertSearchError            exit code 1: the run failed
    ├── UsageError                  exit code 2: the command or the call was wrong
    │   ├── SourceError             a source names nothing that can be indexed
    │   └── UnknownMomentError      there is no moment with such an id, or no longer
    ├── IndexDirectoryError         the index directory is not usable as asked
    │   ├── IndexNotFoundError      nothing there, or nothing that is an index
    │   ├── IndexFormatError        made by another version, or damaged
    │   └── IndexSettingsError      made with another model or sampling
    ├── StorageError                a file could not be read or written
    ├── WorkerError                 the workers could not start, or died
    ├── OverloadedError             a service has no room for one more request
    └── VideoError                  one video failed; recorded in the ledger, never fatal to a run

Texts say what is wrong, the rule, the value got and the next step, in one line.
"""


class VideoBertSearchError(Exception):
    """Root of the tree. `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(VideoBertSearchError):
    """An argument is outside what the command or function accepts."""

    exit_code = 2


class SourceError(UsageError):
    """A source (path, glob, manifest) does not exist or holds no video."""


class UnknownMomentError(UsageError):
    """The index holds no moment with this id, in the version that is asked."""


class IndexDirectoryError(VideoBertSearchError):
    """The index directory cannot be used as asked."""


class IndexNotFoundError(IndexDirectoryError):
    """There is no index at the given path."""


class IndexFormatError(IndexDirectoryError):
    """The index is of another format version, or its files are damaged."""


class IndexSettingsError(IndexDirectoryError):
    """The index was made with another model, sampling rate or segment length."""


class StorageError(VideoBertSearchError):
    """Reading from or writing to storage failed."""


class WorkerError(VideoBertSearchError):
    """Ray workers could not be started, or died in a way that ends the run."""


class OverloadedError(VideoBertSearchError):
    """A service has as many requests of this kind as it takes."""


class VideoError(VideoBertSearchError):
    """One video could not be processed.

    Attributes:
        stage: where it failed: "read", "open", "decode", "encode" or "write".
        kind: short name of the reason, e.g. "NoVideoStream". Stable, for grouping.
        message: one line a person understands.
    """

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str, str]]:
        return type(self), (self.stage, self.kind, self.message)
