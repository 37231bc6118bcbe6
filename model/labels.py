"""The classes that a frame encoder's classifier knows: names for people, and embeddings for ConSE.

The embeddings of ImageNet's 1,000 descriptions take seconds to compute, so they come with the package, as int8 with
one scale a row (cosine with the exact ones above 0.9999). A test pins them to what the text encoder gives. To write
them anew, after a change of the descriptions or of the text encoder: `python -m model.labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.frame_encoder import TinyFrameEncoder
from model.text_encoder import TextEncoder
from model.video_text_model import TextModel

DATA_DIR = Path(__file__).parent / "data"
EMBEDDINGS_FILE = "imagenet_label_embeddings.safetensors"


class Labels(NamedTuple):
    """The classes, in the order of the classifier's outputs.

    Attributes:
        names: short and all different, e.g. "tabby".
        embeddings: float32 [C, E] of length 1, of the descriptions.
    """

    names: list[str]
    embeddings: Tensor


def imagenet_classes() -> list[tuple[str, str]]:
    """(short name, "all names: definition") of the 1,000 ImageNet classes, in the order of classifiers.

    Source: WordNet 3.0, for the synsets of ILSVRC 2012.
    """
    lines = (DATA_DIR / "imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]  # the first is the header
    return [(name, description) for _, _, name, description in rows]


def imagenet_labels(embeddings_file: Path) -> Labels:
    """ImageNet's classes with the embeddings in `embeddings_file`."""
    from safetensors.torch import load_file

    tensors = load_file(embeddings_file)
    names = [name for name, _ in imagenet_classes()]
    return Labels(names, dequantise(tensors["codes"], tensors["scales"]))


def colour_labels(text_encoder: TextEncoder) -> Labels:
    """The eight colours of `TinyFrameEncoder`."""
    names = list(TinyFrameEncoder.COLOURS)
    return Labels(names, text_encoder.encode(names).cpu())


def quantise(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [C, E] -> codes int8 [C, E] and scales float32 [C, 1], with `codes * scales` nearest to the input."""
    scales = embeddings.abs().amax(dim=1, keepdim=True) / 127
    return (embeddings / scales).round().to(torch.int8), scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """The inverse of `quantise`, with rows scaled back to length 1."""
    return F.normalize(codes.float() * scales, dim=1)


def write_label_embeddings(text_encoder: TextModel, descriptions: Sequence[str], path: Path) -> None:
    """Embed `descriptions` and write them to `path`, as `imagenet_labels` reads them."""
    from safetensors.torch import save_file

    codes, scales = quantise(text_encoder.encode(descriptions).cpu())
    save_file({"codes": codes, "scales": scales}, path)


def _main() -> None:
    from model.weights import load_text_encoder

    descriptions = [description for _, description in imagenet_classes()]
    write_label_embeddings(load_text_encoder("mini-zero"), descriptions, DATA_DIR / EMBEDDINGS_FILE)


if __name__ == "__main__":
    _main()
