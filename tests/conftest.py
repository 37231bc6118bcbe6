"""Videos and models that the tests make themselves.

Every frame of a video shows its own number as 4 x 4 black and white blocks. The CLIP models are tiny and random.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

# PyTorch, which is imported later, has threads that spin while they wait for each other: where other processes need the
# cores too, this took ten times the processor time of the tiny models' own work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TIME_BASE = Fraction(1, 1000)
GRID = 4


class SyntheticVideos:
    """Writes videos into a folder, and reads frame numbers back from pixels of any size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        name: str,
        times_ms: Sequence[int],
        *,
        codec: str = "libx264",
        width: int = 128,
        height: int = 96,
        pix_fmt: str = "yuv420p",
        rotation_ccw_deg: int = 0,
        mirrored: bool = False,
        sound_s: float = 0.0,
        sound_language: str | None = None,
        options: dict[str, str] | None = None,
        title: str | None = None,
        numbers: Sequence[int] | None = None,
    ) -> str:
        """Frame i shows `numbers[i]` (default: i) and has the PTS `times_ms[i]`; the extension sets the container."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            if title is not None:
                container.metadata["title"] = title
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = TIME_BASE
            if rotation_ccw_deg or mirrored:
                stream.set_display_rotation(rotation_ccw_deg, hflip=mirrored)
            sound = container.add_stream("aac", rate=16000, layout="mono") if sound_s else None
            if sound is not None and sound_language:
                sound.metadata["language"] = sound_language
            for time_ms, number in zip(times_ms, numbers or range(len(times_ms)), strict=True):
                frame = av.VideoFrame.from_ndarray(self.picture(number, width, height), format="rgb24")
                frame.pts, frame.time_base = time_ms, TIME_BASE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                for packet in _silence(sound, sound_s):
                    container.mux(packet)
        return str(path)

    @staticmethod
    def picture(number: int, width: int = 128, height: int = 96) -> np.ndarray:
        """uint8 [height, width, 3]; block (row, column) is white where bit 4 * row + column of the number is set."""
        bits = np.array([number >> i & 1 for i in range(GRID * GRID)], np.uint8).reshape(GRID, GRID)
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        return np.repeat(bits[rows][:, columns, None] * np.uint8(255), 3, axis=2)

    @staticmethod
    def number(pixels: np.ndarray) -> int:
        """The number that uint8 [height, width, 3] shows."""
        height, width = pixels.shape[:2]
        rows, columns = (
            (2 * np.arange(GRID) + 1) * height // (2 * GRID),
            (2 * np.arange(GRID) + 1) * width // (2 * GRID),
        )
        bits = pixels[rows][:, columns].mean(axis=2) > 127
        return int(sum(1 << i for i, bit in enumerate(bits.ravel()) if bit))


def _silence(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    packets, position = [], 0
    while position < seconds * 16000:
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, position, Fraction(1, 16000)
        packets += stream.encode(frame)
        position += 1024
    return packets + stream.encode(None)


@pytest.fixture
def synthetic(tmp_path: Path) -> SyntheticVideos:
    """Makes videos in the test's own folder: `synthetic.write("a.mp4", range(0, 2000, 40))`."""
    return SyntheticVideos(tmp_path)


@pytest.fixture(scope="session")
def make_videos() -> type[SyntheticVideos]:
    """For fixtures that outlive one test: `make_videos(folder).write(...)`."""
    return SyntheticVideos


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The order of PyTorch's sums must not depend on how many threads the machine has to spare."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A random CLIP model that transformers saved, by its type: "clip", "siglip" or "siglip2". Not to be changed."""
    pytest.importorskip("transformers")
    return functools.cache(lambda kind: _save_clip(tmp_path_factory.mktemp("models") / f"tiny-{kind}", kind))


def _save_clip(folder: Path, kind: str) -> Path:
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**tower, "vocab_size": 64, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2}
    size: dict[str, Any] = {"num_patches": 16} if kind == "siglip2" else {"image_size": 32}
    vision = {**tower, **size, "patch_size": 8}
    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    more = {"projection_dim": 24} if kind == "clip" else {}
    config = getattr(transformers, f"{name}Config")(
        text_config={**text, "pad_token_id": 0}, vision_config=vision, **more
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(config)
        for weight in model.parameters():
            if weight.ndim > 1:  # as they come, the texts' vectors hardly differ
                weight.normal_(std=0.2)
        model.save_pretrained(folder)
    (
        _letter_tokenizer() if kind == "siglip2" and hasattr(transformers, "Siglip2Tokenizer") else _word_tokenizer()
    ).save_pretrained(folder)
    pixels = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "rescale_factor": 1 / 255}
    patches = {"max_num_patches": 16} if kind == "siglip2" else {"size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**pixels, **patches}))
    return folder


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "photo", "of", "the", "in", "on", "red", "dog", "car", "tree"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _letter_tokenizer() -> Any:
    """Of the class that transformers 5 takes for a "siglip2" whatever was saved: byte pairs, none of them here."""
    from transformers import Siglip2Tokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁abcdefghijklmnopqrstuvwxyz"]
    return Siglip2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
