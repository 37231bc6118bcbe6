"""VideoBERT in PyTorch: tensors in, tensors out.

    from model import load_model
    videobert = load_model("mini")
    features = videobert.encode_frames(frames)              # uint8 [N, 224, 224, 3] -> float32 [N, 1, 1280]
    queries = videobert.encode_text(["a dog on a beach"])   # float32 [1, 384]

Importing this package imports no torch; that happens when something is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.config import VideoBertConfig, preset
from model.errors import ModelError
from model.weights import ModelFacts, load_model, load_text_encoder, model_facts, model_fingerprint

if TYPE_CHECKING:
    from model.text_encoder import TextEncoder
    from model.videobert import VideoBert

__all__ = [
    "ModelError",
    "ModelFacts",
    "TextEncoder",
    "VideoBert",
    "VideoBertConfig",
    "load_model",
    "load_text_encoder",
    "model_facts",
    "model_fingerprint",
    "preset",
]


def __getattr__(name: str) -> object:
    if name == "VideoBert":
        from model.videobert import VideoBert

        return VideoBert
    if name == "TextEncoder":
        from model.text_encoder import TextEncoder

        return TextEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
