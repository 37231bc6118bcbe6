"""The connection to S3-compatible storage: settings from the standard environment, retries, errors as one line.

Credentials stay in the environment, where obstore and Delta read them; nothing here holds, passes on or prints them.
"""

from __future__ import annotations

import functools
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from indexer.errors import StorageError

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

# Attempts go on for about half a minute: longer than a server throttles or restarts, shorter than the minute after
# which the guard takes a decoder that waits for data for one that hangs.
_MAX_ATTEMPTS = 9
_RETRY_LIMIT_S = 40
_FIRST_PAUSE_MS, _LONGEST_PAUSE_S = 200, 8
_REQUEST_LIMIT_S, _CONNECT_LIMIT_S = 30, 5

_BROKE_OFF = "body error|reading a body|SendRequest|Connection reset|IncompleteMessage"
_REFUSED_KEYS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """What the environment says, without the credentials.

    Attributes:
        endpoint: URL of the server; None is AWS itself.
        region: of the bucket.
        max_attempts: tries of one request, the first included (AWS_MAX_ATTEMPTS).
    """

    endpoint: str | None
    region: str
    max_attempts: int

    @classmethod
    def from_environment(cls) -> S3Settings:
        value = os.environ.get
        attempts = value("AWS_MAX_ATTEMPTS", "")
        return cls(
            endpoint=value("AWS_ENDPOINT_URL_S3") or value("AWS_ENDPOINT_URL") or None,
            region=value("AWS_REGION") or value("AWS_DEFAULT_REGION") or "us-east-1",
            max_attempts=max(1, int(attempts)) if attempts.isdigit() else _MAX_ATTEMPTS,
        )

    @property
    def allow_http(self) -> bool:
        return (self.endpoint or "").startswith("http://")


def delta_options() -> dict[str, str]:
    """For Delta tables in buckets: the same server and the same patience; commits by conditional put."""
    settings = S3Settings.from_environment()
    options = {
        "aws_region": settings.region,
        "conditional_put": "etag",
        "allow_http": str(settings.allow_http).lower(),
        "timeout": f"{_REQUEST_LIMIT_S}s",
        "connect_timeout": f"{_CONNECT_LIMIT_S}s",
        "max_retries": str(settings.max_attempts - 1),
        "retry_timeout": f"{_RETRY_LIMIT_S}s",
        "backoff_config.init_backoff": f"{_FIRST_PAUSE_MS}ms",
        "backoff_config.max_backoff": f"{_LONGEST_PAUSE_S}s",
        "backoff_config.base": "2",
    }
    return options | ({"aws_endpoint": settings.endpoint} if settings.endpoint else {})


def open_bucket(bucket: str) -> S3Store:
    """The client of a bucket; one for each, as long as the environment stays the same."""
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return _open_bucket(bucket, S3Settings.from_environment(), hash(tuple(map(os.environ.get, keys))))


@functools.lru_cache(maxsize=64)
def _open_bucket(bucket: str, settings: S3Settings, credentials_hash: int) -> S3Store:
    from obstore.store import S3Store  # only here: most collections are local

    endpoint: Any = {"endpoint": settings.endpoint} if settings.endpoint else {}
    return S3Store(
        bucket,
        region=settings.region,
        **endpoint,
        client_options={
            "allow_http": settings.allow_http,
            "timeout": timedelta(seconds=_REQUEST_LIMIT_S),
            "connect_timeout": timedelta(seconds=_CONNECT_LIMIT_S),
        },
        retry_config={
            "max_retries": settings.max_attempts - 1,
            "retry_timeout": timedelta(seconds=_RETRY_LIMIT_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=_FIRST_PAUSE_MS),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
                "base": 2,
            },
        },
    )


def request(uri: str, call: Callable[[], T]) -> T:
    """What `call` returns, which asks obstore for something.

    Raises:
        FileNotFoundError: the bucket is there, the object is not.
        FileExistsError: a conditional put found an object.
        StorageError: anything else, as one line; never with what the server or a library said word for word.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        return persistently(call)
    except AlreadyExistsError:
        raise FileExistsError(17, "the object exists already", uri) from None
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
            raise FileNotFoundError(2, "the object does not exist", uri) from None
        raise StorageError(f"cannot reach {uri!r}: {explain(str(error), uri)}") from None


def persistently(call: Callable[[], T]) -> T:
    """Calls again where the connection broke off while an answer came in.

    The Rust library repeats requests that were refused or throttled. It does not repeat a listing or an error whose
    text did not arrive, nor a conditional put: only its caller can tell whether it had been done.
    """
    pause_s = _FIRST_PAUSE_MS / 1000
    for _ in range(S3Settings.from_environment().max_attempts - 1):
        try:
            return call()
        except Exception as error:  # obstore, Delta and pyarrow have no common one
            if not broke_off(str(error)):
                raise
        time.sleep(random.uniform(0.5, 1) * pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return call()


def broke_off(text: str) -> bool:
    """Whether a connection broke off, and the library has not given up after repeating the request itself."""
    text = " ".join(re.sub(r"\x1b\[\d+m|[↳:]", " ", text).split())
    repeated = re.search(r"after (\d+) retries, max_retries (\d+)", text)
    gave_up = repeated is not None and repeated[1] == repeated[2]
    return not gave_up and re.search(_BROKE_OFF, text) is not None


def is_unreachable(text: str) -> bool:
    """Whether the text of an error speaks of the way to the storage, not of what lies there."""
    return re.search("Generic S3 error|status code|error sending request|performing|redential", text) is not None


def explain(text: str, uri: str) -> str:
    """Why a request failed, from the text of the Rust library that both obstore and Delta are made of."""
    text = text.split("Debug source")[0]
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else ""
    status = int(found[1]) if (found := re.search(r"(?<!\d)([345]\d\d) [A-Z][a-z]", text)) else 0
    said = f"{status} {code}".strip()
    endpoint = S3Settings.from_environment().endpoint or "of AWS"
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if re.search("169\\.254\\.|latest/(api|meta-data)", text):  # where a machine asks for the credentials of its role
        return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"the bucket {bucket!r} does not exist at the endpoint {endpoint}; check its name and AWS_ENDPOINT_URL"
    if code in _REFUSED_KEYS or status == 401:
        return f"the credentials were refused ({said}); check AWS_ACCESS_KEY_ID and what goes with it"
    if code in _OTHER_REGION or "redirect" in text:
        return f"the bucket {bucket!r} lies in another region; set AWS_REGION"
    if status == 403:
        return f"access is denied ({said}); check the credentials and what they permit (docs/object-storage.md)"
    if status == 412:
        return "the object was replaced while it was read; run again"
    if status == 429 or status >= 500:
        return f"the storage keeps answering {said}, also after several tries; run again later"
    if "invalid path" in text or "parse path" in text:
        return "it holds a key with an empty, '.' or '..' part, which cannot be read; name a prefix without it"
    if re.search(r"sending request|timed out|connect|body|closed", text, re.IGNORECASE):
        return f"the endpoint {endpoint} does not answer, or breaks off; check AWS_ENDPOINT_URL and the network"
    return f"the storage refused ({said or 'no reason given'})"
