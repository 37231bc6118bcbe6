"""Caption to clip: how well real videos are found. Guessing gives R@1/5/10 = 2/11/22 %."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

VIDEOS = Path(__file__).parents[3] / "shared" / "data" / "videos"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not VIDEOS.is_dir(), reason="the shared collection of clips is not here"),
]


def _frames(path: Path) -> NDArray[np.uint8]:
    """The first frame at or after 0.5 s, 1.5 s, ... (or the last, if there is none), squashed to 224 x 224."""
    av = pytest.importorskip("av")
    kept, next_s = [], 0.5
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            time_s = float((frame.pts - (stream.start_time or 0)) * stream.time_base)
            if time_s >= next_s:
                kept.append(frame)
                next_s = int(time_s - 0.5) + 1.5
    return np.stack([f.to_ndarray(format="rgb24", width=224, height=224) for f in kept or [frame]])


@pytest.mark.parametrize(("model_name", "floors"), [("mini", (68, 93, 97)), ("mini_zero", (60, 85, 93))])
def test_captions_find_their_clips(model_name, floors, request):
    model = request.getfixturevalue(model_name)
    with (VIDEOS / "manifest.tsv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE) if row["kind"] == "normal"]
    videos = []
    for row in rows:
        features = model.encode_frames(_frames(VIDEOS / row["file"]))[None]
        videos.append(
            model.encode_video(features, torch.ones(features.shape[:2]).bool(), torch.zeros(features.shape[:2]))
        )
    similarity = model.encode_text([row["caption"] for row in rows]) @ torch.cat(videos).T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)  # 0 is best
    recall = [100 * (rank < k).float().mean().item() for k in (1, 5, 10)]
    print("R@1/5/10 =", *(f"{value:.1f}" for value in recall))
    assert all(value >= floor for value, floor in zip(recall, floors, strict=True)), recall
