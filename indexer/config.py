"""Settings: what an index is made with (kept in it), and how one run is carried out (not kept)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from indexer.errors import UsageError

FORMAT_VERSION = 1
DEFAULT_MODEL = "mini"
INT8_MODEL = "mini-int8"  # the same in 8-bit integers: see `indexer.default_model`
SAMPLING_MODES = ("exact", "auto", "keyframes")
DEFAULT_SAMPLING_MODE = "auto"
DECODERS = ("cpu", "nvdec")


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise UsageError(text)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which frames are looked at, and how they are cut into moments.

    Attributes:
        frame_rate_hz: frames looked at per second of video, 0.01 to 60.
        segment_length_s: longest moment in seconds; segments are [0, L), [L, 2L), ... Up to an hour.
        mode: which frame stands for each of the 1 / rate seconds long spans of a video. "exact": the one shown in the
            middle of the span. "auto": the nearest key frame of the same moment less than 1 / rate seconds from there,
            where this spares something; else as "exact", or up to as much earlier where the next span takes a key
            frame. "keyframes": the nearest key frame, up to 30 s away; much faster and coarser. None: as the index was
            made, and "auto" for a new one.
    """

    frame_rate_hz: float = 1.0
    segment_length_s: float = 10.0
    mode: str | None = None

    def __post_init__(self) -> None:
        _require(
            self.mode is None or self.mode in SAMPLING_MODES,
            f"the sampling must be one of {', '.join(SAMPLING_MODES)}, got {self.mode!r}",
        )
        _require(
            0.01 <= self.frame_rate_hz <= 60,
            f"the frame rate must be 0.01 to 60 per second, got {self.frame_rate_hz!r}",
        )
        _require(
            1 / self.frame_rate_hz <= self.segment_length_s <= 3600,
            f"the segment length must be at least one frame period ({1 / self.frame_rate_hz:g} s) and at most 3600 s, "
            f"got {self.segment_length_s!r}",
        )
        num_frames = self.frame_rate_hz * self.segment_length_s
        _require(
            num_frames <= 600, f"a moment may hold at most 600 frames, got {num_frames:g}: lower the rate or the length"
        )


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What an index is made with. Saved as index.json, after a refresh as index-1.json and so on; every later run must
    agree with it.

    Attributes:
        model: name of the preset, e.g. "mini".
        model_fingerprint: what `VideoBert.fingerprint` says; two indexes compare only if it is equal.
        embedding_dim: length of the vectors.
        feature_shape: (tokens per frame, numbers per token) of the stored frame features.
        frames_fingerprint: see `model.facts.frames_fingerprint`; empty in indexes made before it was kept.
        sampling: see `SamplingConfig`.
        format_version: layout of the directory.
    """

    model: str
    model_fingerprint: str
    embedding_dim: int
    feature_shape: tuple[int, int]
    frames_fingerprint: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> IndexConfig:
        """Raises KeyError or TypeError where `values` is not what `to_dict` wrote."""
        known = dict(values)
        known["sampling"] = SamplingConfig(**{"mode": "exact", **known["sampling"]})  # older indexes know no other
        known["feature_shape"] = tuple(known["feature_shape"])
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How one `index` run is carried out. None of it changes what the index holds.

    Attributes:
        address: Ray cluster to join ("auto", "host:port"); None starts Ray on this machine.
        num_workers: actors that decode, and on CPUs encode; None means one a core, but for a core a GPU.
        device: what encodes: "cpu", "cuda" or "auto" (a GPU where the cluster has one).
        share_model: actors only decode and share one model, as they do where a GPU encodes, also on CPUs.
        commit_interval_s: the driver commits what has arrived at least this often.
        limit: stop after this many new or changed videos.
        prune: remove videos from the index that the sources no longer list.
        retry_failed: try again what failed in an earlier run even if its file is unchanged.
        decode_timeout_s: a video whose decoder shows no progress for so long is given up.
        decoder: "cpu", or "nvdec": NVIDIA GPUs, for what they decode to the last bit as the CPU does.
    """

    address: str | None = None
    num_workers: int | None = None
    device: str = "auto"
    share_model: bool = False
    commit_interval_s: float = 5.0
    limit: int | None = None
    prune: bool = False
    retry_failed: bool = False
    decode_timeout_s: float = 60.0
    decoder: str = "cpu"

    def __post_init__(self) -> None:
        _require(
            self.num_workers is None or self.num_workers >= 1,
            f"the number of workers must be at least 1, got {self.num_workers!r}",
        )
        _require(self.device in ("auto", "cpu", "cuda"), f"the device must be auto, cpu or cuda, got {self.device!r}")
        _require(self.decoder in DECODERS, f"the decoder must be cpu or nvdec, got {self.decoder!r}")
        _require(self.commit_interval_s > 0, f"the commit interval must be above 0 s, got {self.commit_interval_s!r}")
        _require(self.limit is None or self.limit >= 1, f"the limit must be at least 1, got {self.limit!r}")
        _require(self.decode_timeout_s > 0, f"the decode time-out must be above 0 s, got {self.decode_timeout_s!r}")

    @property
    def joins_cluster(self) -> bool:
        """Whether there is a Ray cluster already that the run joins; RAY_ADDRESS is set in a Ray job."""
        return bool(self.address or os.environ.get("RAY_ADDRESS"))
