"""Recall@K of held-out photographs and of clips, by the model's public functions. Guessing gives 100 · K / N %."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.videobert import VideoBert
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE, Clip, Photographs, view

Recall = tuple[float, float, float]

_RANKS = (1, 5, 10)
_FRAMES_PER_BATCH = 256
_FRAMES_PER_MOMENT = 10


def recall(similarity: Tensor, target: Tensor) -> Recall:
    """Recall@1, 5 and 10 in percent of queries [M] among videos: similarity [M, N] and the right column of each."""
    rank = (similarity > similarity.gather(1, target[:, None])).sum(dim=1)  # 0 is best
    one, five, ten = (round(100 * (rank < k).float().mean().item(), 1) for k in _RANKS)
    return one, five, ten


def evaluate_photographs(model: VideoBert, photographs: Photographs) -> dict[str, Recall]:
    """Text to image: with all captions and with the first ones as queries; and in each regime, where the first caption
    (or that of another photograph) plays the transcript and the other four are the queries.
    """
    num = len(photographs)
    pixels = [view(jpeg, 0, seed=0) for jpeg in photographs.jpegs]
    batches = [pixels[start : start + _FRAMES_PER_BATCH] for start in range(0, num, _FRAMES_PER_BATCH)]
    features = torch.cat([model.encode_frames(np.stack(batch)) for batch in batches]).half()[:, None]
    queries = model.encode_text([caption for five in photographs.captions for caption in five])
    image = torch.arange(num).repeat_interleave(CAPTIONS_PER_IMAGE)
    is_first = torch.arange(len(queries)) % CAPTIONS_PER_IMAGE == 0
    first, mask = [captions[0] for captions in photographs.captions], torch.ones(num, 1, dtype=torch.bool)
    times_s = torch.zeros(num, 1)
    regimes = {
        "video only": model.encode_video(features, mask, times_s),
        "text only": model.encode_text(first),
        "both": model.encode_video(features, mask, times_s, first),
        "unrelated text": model.encode_video(features, mask, times_s, first[7:] + first[:7]),
    }
    video = regimes["video only"]
    return {
        "all captions": recall(queries @ video.T, image),
        "first captions": recall(queries[is_first] @ video.T, image[is_first]),
        **{name: recall(queries[~is_first] @ vectors.T, image[~is_first]) for name, vectors in regimes.items()},
    }


def evaluate_clips(model: VideoBert, clips: Sequence[Clip]) -> dict[str, Recall]:
    """Caption to clip: with each clip as one moment, and as the best of its moments of ten seconds."""
    queries, target = model.encode_text([clip.caption for clip in clips]), torch.arange(len(clips))
    features = [model.encode_frames(clip.frames).half() for clip in clips]
    whole = torch.cat([_encode_moment(model, frames) for frames in features])
    best = [
        torch.stack([queries @ _encode_moment(model, part)[0] for part in frames.split(_FRAMES_PER_MOMENT)]).amax(dim=0)
        for frames in features
    ]
    return {"whole clip": recall(queries @ whole.T, target), "best moment": recall(torch.stack(best, dim=1), target)}


def _encode_moment(model: VideoBert, features: Tensor) -> Tensor:
    times_s = torch.arange(len(features)).float()[None]
    return model.encode_video(features[None], torch.ones(1, len(features), dtype=torch.bool), times_s)
