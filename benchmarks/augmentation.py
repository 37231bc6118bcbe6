"""Does augmentation help search? Recall of the quick probe with and without each of them.

    python -m benchmarks.augmentation --data flickr8k_train.parquet --cache FOLDER

The quick probe: on the features of the untrained backbones, the frame head and the query adapter of `mini` learn from
photographs with five captions each. Each seed holds back other photographs, and each way of augmenting is compared with
none on the same seeds. Each example has one augmented version, which is taken instead of the original every other time;
what is called a preprocessing happens to every example, in training and when searching. Features and results are kept
in the folder as they come, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import report
from model.augment import VideoAugmentation, augment_clip
from model.augment_text import TextAugmentation, augment_text
from model.config import preset
from model.conse import centred, class_probabilities, conse_embedding
from model.fusion import FusionTower
from model.objectives import contrastive_loss
from model.text_encoder import QueryAdapter
from model.videobert import VideoBert
from model.weights import load_model
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE, Photographs, read_photographs
from recipes.flickr8k.evaluate import recall
from recipes.flickr8k.loop import Group, LoopSettings, fit

_FRAMES_AT_ONCE = 64
_BATCH_SIZE = 256
_SCALE = 20.0
_LEARNING_RATE = 1e-3
_RANKS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way of augmenting.

    Attributes:
        pixels, text: what may happen to photographs and to captions; None for nothing.
        always: it happens to every example, in training and when searching, and there is no original beside it.
    """

    pixels: VideoAugmentation | None = None
    text: TextAugmentation | None = None
    always: bool = False


_CROP = VideoAugmentation(smallest_crop=0.5, largest_stretch=1.28)
_COLOUR = VideoAugmentation(brightness=0.3, contrast=0.3, saturation=0.3)
_PLAIN = "nothing"
CONDITIONS = {
    _PLAIN: Condition(),
    "text: word dropout 0.2": Condition(text=TextAugmentation(word_dropout=0.2)),
    "text: no stop words": Condition(text=TextAugmentation(remove_stop_words=True)),
    "text: no stop words, preprocessing": Condition(text=TextAugmentation(remove_stop_words=True), always=True),
    "text: synonyms 0.5": Condition(text=TextAugmentation(synonym_rate=0.5)),
    "picture: flip": Condition(pixels=VideoAugmentation(flip_probability=1.0)),
    "picture: crop": Condition(pixels=_CROP),
    "picture: colour": Condition(pixels=_COLOUR),
    "picture: crop, flip, colour": Condition(
        pixels=replace(_COLOUR, smallest_crop=0.5, largest_stretch=1.28, flip_probability=0.5)
    ),
    "picture: median filter, preprocessing": Condition(pixels=VideoAugmentation(denoise="median"), always=True),
    "picture: Gaussian filter, preprocessing": Condition(pixels=VideoAugmentation(denoise="gaussian"), always=True),
}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What the probe learns from: N photographs, V versions of each.

    Attributes:
        features: float16 [N, V, D].
        anchors: float32 [N, V, E], ConSE of them.
        sentences: float16 [N * 5, V', E], of the captions.
    """

    features: Tensor
    anchors: Tensor
    sentences: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--cache", type=Path, help="folder in which features are kept")
    parser.add_argument("--photographs", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="only the conditions whose names begin so, e.g. picture")
    arguments = parser.parse_args()
    if arguments.data is None or arguments.cache is None:
        print("augmentation: nothing measured, as it needs --data and --cache; see --help", file=sys.stderr)
        return
    if arguments.photographs - arguments.held_out < _BATCH_SIZE:
        parser.error(f"--photographs must be at least --held-out + {_BATCH_SIZE}, got {arguments.photographs}")
    photographs = read_photographs(arguments.data, seed=0).part(0, arguments.photographs)
    encoder = Encoder(arguments.cache, photographs)
    names = [name for name in CONDITIONS if name == _PLAIN or name.startswith(arguments.only)]
    recalls = {
        name: [encoder.recall(name, seed, arguments.held_out, arguments.epochs) for seed in range(arguments.seeds)]
        for name in names
    }
    report("augmentation", figures(recalls, len(photographs), arguments.held_out, arguments.epochs))


class Encoder:
    """Photographs and captions to features, each version computed once and kept in a folder."""

    def __init__(self, folder: Path, photographs: Photographs) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.photographs = folder, photographs
        model = load_model("mini-zero")
        assert isinstance(model, VideoBert)
        self.model = model

    def recall(self, name: str, seed: int, num_held_out: int, num_epochs: int) -> Sequence[float]:
        """See `probe`."""
        what = f"{name} {len(self.photographs)}-{num_held_out} photographs {num_epochs} epochs seed {seed}"
        path = self.folder / f"{what}.json"
        if not path.exists():
            path.write_text(json.dumps(probe(self.examples(CONDITIONS[name]), seed, num_held_out, num_epochs)))
        result: list[float] = json.loads(path.read_text())
        print(f"{what}: R@1/5/10 {result}", file=sys.stderr, flush=True)
        return result

    def examples(self, condition: Condition) -> Examples:
        """Every version that a condition asks for: the original first, unless it always happens."""
        features = torch.stack(self._versions(condition, "pixels"), dim=1)
        sentences = torch.stack(self._versions(condition, "text"), dim=1)
        anchors = torch.stack([self._anchors(version) for version in features.unbind(dim=1)], dim=1)
        return Examples(features=features, anchors=anchors, sentences=sentences)

    @torch.no_grad()
    def _anchors(self, features: Tensor) -> Tensor:
        model = self.model
        logits = model.frame_encoder.logits(features[:, None].float())
        probabilities = class_probabilities(logits, model.config.conse_temperature)
        return conse_embedding(probabilities, centred(model.label_embeddings))

    def _versions(self, condition: Condition, kind: str) -> list[Tensor]:
        settings = getattr(condition, kind)
        plain = VideoAugmentation() if kind == "pixels" else TextAugmentation()
        if settings is None:
            return [self._encoded(plain)]
        augmented = self._encoded(settings)
        return [augmented] if condition.always else [self._encoded(plain), augmented]

    def _encoded(self, settings: VideoAugmentation | TextAugmentation) -> Tensor:
        changed = [f"{key}={value}" for key, value in vars(settings).items() if value != getattr(type(settings)(), key)]
        name = "-".join([type(settings).__name__, str(len(self.photographs)), *changed])
        path = self.folder / f"{name}.pt"
        if not path.exists():
            encoded = self._features(settings) if isinstance(settings, VideoAugmentation) else self._sentences(settings)
            torch.save(encoded.half(), path)
        loaded: Tensor = torch.load(path, weights_only=True)
        return loaded

    def _features(self, settings: VideoAugmentation) -> Tensor:
        side_px = self.model.frame_size_px

        def view(row: int) -> Tensor:
            generator = torch.Generator().manual_seed(row)
            with Image.open(io.BytesIO(self.photographs.jpegs[row])) as file:
                pixels = torch.from_numpy(np.array(file.convert("RGB")))
            return augment_clip(pixels[None], settings, side_px, generator)[0]

        with ThreadPoolExecutor(1) as pool:
            rows = torch.arange(len(self.photographs)).split(_FRAMES_AT_ONCE)
            return torch.cat(
                [self.model.encode_frames(torch.stack(list(pool.map(view, batch.tolist()))))[:, 0] for batch in rows]
            )

    def _sentences(self, settings: TextAugmentation) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        captions = [caption for five in self.photographs.captions for caption in five]
        return self.model.encode_text([augment_text(caption, settings, generator) for caption in captions])


class Probe(nn.Module):
    """The frame head and the query adapter of `mini`, fresh."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        config = preset("mini")
        head = FusionTower(replace(config, fusion=replace(config.fusion, init_seed=seed))).frame_head
        assert head is not None
        self.head, self.adapter = head, QueryAdapter(config.embedding_dim, config.text.adapter_width)
        self.adapter.initialise()

    def videos(self, examples: Examples, rows: Tensor, version: Tensor) -> Tensor:
        """Photographs as videos of one frame, as `VideoBert.fuse`: [B, E]."""
        return F.normalize(examples.anchors[rows, version] + self.head(examples.features[rows, version].float()), dim=1)

    def queries(self, examples: Examples, captions: Tensor, version: Tensor) -> Tensor:
        """Captions as queries: [B, E]."""
        vectors: Tensor = self.adapter(F.normalize(examples.sentences[captions, version].float(), dim=1))
        return vectors


def probe(examples: Examples, seed: int, num_held_out: int, num_epochs: int) -> Sequence[float]:
    """Train on all but the held-out photographs, and return their R@1, 5 and 10, every caption being a query."""
    torch.manual_seed(seed)
    order = torch.randperm(len(examples.features))
    held_out, trained = order[:num_held_out], order[num_held_out:]
    model = Probe(seed).train()

    def loss(batch: Tensor) -> Tensor:
        rows = trained[batch]
        captions = rows * CAPTIONS_PER_IMAGE + torch.randint(CAPTIONS_PER_IMAGE, rows.shape)
        videos = model.videos(examples, rows, torch.randint(examples.features.shape[1], rows.shape))
        queries = model.queries(examples, captions, torch.randint(examples.sentences.shape[1], rows.shape))
        return contrastive_loss(queries, videos, torch.arange(len(rows)), _SCALE)

    with contextlib.redirect_stdout(sys.stderr):
        groups = [Group(weights=list(model.parameters()), learning_rate=_LEARNING_RATE)]
        fit(groups, len(trained), loss, LoopSettings(num_epochs=num_epochs, batch_size=_BATCH_SIZE))
    return _recall(model.eval(), examples, held_out)


@torch.no_grad()
def _recall(model: Probe, examples: Examples, held_out: Tensor) -> Sequence[float]:
    captions = (held_out[:, None] * CAPTIONS_PER_IMAGE + torch.arange(CAPTIONS_PER_IMAGE)).flatten()
    first = torch.zeros((), dtype=torch.int64)
    similarity = model.queries(examples, captions, first) @ model.videos(examples, held_out, first).T
    return recall(similarity, torch.arange(len(held_out)).repeat_interleave(CAPTIONS_PER_IMAGE))


def figures(
    recalls: dict[str, list[Sequence[float]]], num_photographs: int, num_held_out: int, num_epochs: int
) -> dict[str, object]:
    """Recall without augmentation, and what each condition adds: mean ± standard error over the seeds, in points."""
    plain = recalls[_PLAIN]
    table: dict[str, object] = {
        "photographs": f"{num_photographs - num_held_out} + {num_held_out} held out",
        "epochs": num_epochs,
        "seeds": len(plain),
        _PLAIN: "R@1/5/10 " + " / ".join(f"{statistics.mean(values):.1f}" for values in zip(*plain, strict=True)),
    }
    for name, runs in recalls.items():
        if name != _PLAIN:
            gains = [
                [with_it - without for with_it, without in zip(run, base, strict=True)]
                for run, base in zip(runs, plain, strict=True)
            ]
            table[name] = " / ".join(_spread([gain[rank] for gain in gains]) for rank in range(len(_RANKS)))
    return table


def _spread(gains: Sequence[float]) -> str:
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    return f"{statistics.mean(gains):+.1f} ± {error:.1f}"


if __name__ == "__main__":
    main()
