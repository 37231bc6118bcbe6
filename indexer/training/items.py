"""What is known of the items to train on besides their features: one JSON file in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FILE = "items.json"


@dataclass(frozen=True, kw_only=True)
class Items:
    """N items.

    Attributes:
        names: for people.
        texts: captions, labels or transcripts of each.
        held_out: bool [N], True for those that are kept back for validation.
        labels: classes: the names of all of them.
        several: classes: whether an item may have several.
    """

    names: list[str]
    texts: list[list[str]]
    held_out: np.ndarray
    labels: list[str]
    several: bool

    def save(self, folder: Path) -> None:
        facts = {"held_out": self.held_out.tolist(), "labels": self.labels, "several": self.several}
        text = json.dumps({"names": self.names, "texts": self.texts, **facts}, ensure_ascii=False)
        (folder / _FILE).write_text(text, encoding="utf-8", errors="surrogatepass")

    @classmethod
    def load(cls, folder: Path) -> Items:
        values = json.loads((folder / _FILE).read_text(encoding="utf-8", errors="surrogatepass"))
        return cls(**{**values, "held_out": np.array(values["held_out"], bool)})
