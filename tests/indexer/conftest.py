"""A folder of small synthetic videos and a way to index it with the tiny model, in this process."""

import itertools
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.cli.app import main
from indexer.config import IndexConfig, RunConfig, SamplingConfig
from indexer.ingest.guard import GuardedDecoder
from indexer.pipeline import RunSummary, index_videos
from indexer.storage import ObjectPath, location
from indexer.store.index import IndexStore
from model.weights import model_facts
from tests.indexer.s3_proxy import SECRET, S3Proxy

_bucket_numbers = itertools.count()


def write_small_videos(make_videos: Callable[[Path], Any], folder: Path) -> Path:
    """a.mp4 of 12 s (two moments), b.mkv of 3 s with a subtitle file, sub/c.avi of 1 s."""
    (folder / "sub").mkdir(parents=True)
    synthetic = make_videos(folder)
    synthetic.write("a.mp4", range(0, 12_000, 100))
    synthetic.write("b.mkv", range(0, 3_000, 100), title="The second")
    synthetic.write("sub/c.avi", range(0, 1_000, 40), codec="mpeg4")
    (folder / "b.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nblocks in black and white\n")
    return folder


def index_folder(videos: Path, index: Path) -> None:
    """Indexes a folder with the tiny model, in this process."""
    settings: dict[str, Any] = {"model": "tiny_test", "sampling": SamplingConfig(), "run": RunConfig()}
    index_videos([str(videos)], index, in_process=True, **settings)


def new_index(path: Path, sampling: SamplingConfig = SamplingConfig()) -> IndexStore:  # noqa: B008 (frozen)
    """An empty index of the tiny model."""
    facts = model_facts("tiny_test")
    config = IndexConfig(
        model="tiny_test",
        model_fingerprint=facts.fingerprint,
        embedding_dim=facts.embedding_dim,
        feature_shape=facts.feature_shape,
        sampling=sampling,
    )
    return IndexStore.open_or_create(path, config)


@pytest.fixture(scope="session")
def small_videos(make_videos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`write_small_videos`, once. Not to be changed."""
    return write_small_videos(make_videos, tmp_path_factory.mktemp("small") / "videos")


@pytest.fixture
def videos(small_videos: Path, tmp_path: Path) -> Path:
    """A copy of them in the test's own folder."""
    return Path(shutil.copytree(small_videos, tmp_path / "videos"))


@pytest.fixture(scope="session")
def indexed(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of `small_videos`, made once with the tiny model. Not to be changed."""
    folder = tmp_path_factory.mktemp("indexed") / "index"
    index_folder(small_videos, folder)
    return folder


@pytest.fixture
def copied_index(indexed: Path, tmp_path: Path) -> Path:
    """A copy of it as tmp_path/index, for tests that change the index."""
    return Path(shutil.copytree(indexed, tmp_path / "index"))


@pytest.fixture
def run_index(tmp_path: Path) -> Callable[..., RunSummary]:
    """Indexes into tmp_path/index without Ray; keyword arguments go to `RunConfig` or `SamplingConfig`."""

    def run(*sources: Any, into: Any = "index", on_ray: bool = False, **options: Any) -> RunSummary:
        names = ("frame_rate_hz", "segment_length_s", "mode")
        sampling = {name: options.pop(name) for name in names if name in options}
        on_progress = options.pop("on_progress", lambda progress: None)
        return index_videos(
            [str(source) for source in sources],
            into if isinstance(into, ObjectPath) else tmp_path / into,
            model="tiny_test",
            sampling=SamplingConfig(**sampling),
            run=RunConfig(**options),
            in_process=not on_ray,
            on_progress=on_progress,
        )

    return run


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Visible moments of tmp_path/index with their video's URI, by URI and time; batch ids and clock times left out."""

    def read(into: Any = "index", columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        snapshot = IndexStore.open(into if isinstance(into, ObjectPath) else tmp_path / into).snapshot()
        rows = snapshot.read(range(snapshot.num_segments), snapshot_columns()).to_pylist()
        for row, video_row in zip(rows, snapshot.rows.video_rows, strict=True):
            row["uri"] = snapshot.videos["uri"][int(video_row)].as_py()
        rows.sort(key=lambda row: (row["uri"], row["start_s"]))
        return [{name: row[name] for name in columns} for row in rows] if columns else rows

    return read


def snapshot_columns() -> list[str]:
    from indexer import schema

    return [name for name in schema.SEGMENTS.names if name != "batch_id"]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Proxy]:
    """A real HTTP endpoint that speaks S3, behind a proxy that counts and can break.

    S3 alone: the server of all services that moto also has works out at every request which one is meant.
    """
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy = S3Proxy(upstream_port=server.server_port)
    yield proxy
    proxy.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(s3_server: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Proxy:
    """The server, with the environment pointing to it and nothing counted or broken yet."""
    for name in ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEKEYID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("VIDEOBERT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("indexer.storage.s3._FIRST_PAUSE_MS", 20)  # faults pass by number, not with time
    s3_server.reset()
    return s3_server


@pytest.fixture
def bucket(s3: S3Proxy) -> ObjectPath:
    """A new, empty bucket."""
    name = f"media-{next(_bucket_numbers)}"
    request = urllib.request.Request(f"{s3.url}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    s3.reset()
    made = location(f"s3://{name}")
    assert isinstance(made, ObjectPath)
    return made


@pytest.fixture
def upload() -> Callable[[Path, ObjectPath], None]:
    """Puts a file, or all files of a folder, into a bucket."""

    def put(source: Path, target: ObjectPath) -> None:
        if source.is_file():
            target.upload(source)
        for path in source.rglob("*"):
            if path.is_file():
                (target / path.relative_to(source).as_posix()).upload(path)

    return put


@pytest.fixture
def videobert(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    import indexer.pipeline

    def encode_here(items, settings, run):
        yield from indexer.pipeline.encode_in_threads(items, settings, num_threads=1)

    monkeypatch.setattr("indexer.pipeline._encode_on_ray", encode_here)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["videobert", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return run


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the videos that are decoded, as it happens."""
    names: list[str] = []
    real = GuardedDecoder.read_video

    def read_video(self, path, **options):
        names.append(Path(path).name)
        return real(self, path, **options)

    monkeypatch.setattr(GuardedDecoder, "read_video", read_video)
    return names
