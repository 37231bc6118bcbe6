"""The text tower of CLIP, SigLIP and SigLIP 2, and reading such a model with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from model.clip_files import ClipConfig
from model.errors import ModelError, WeightsDamagedError
from model.inputs import check_strings

_TEXTS_PER_BATCH = 64
_MAX_CHARACTERS_PER_TOKEN = 64  # what lies far beyond max_tokens words is cut before it is tokenised
# What transformers raises on files that it cannot use; a tokeniser may also want a package that is not installed.
_LOADER_ERRORS = (ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)
_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}


class ClipText(nn.Module):
    """The text tower and its tokeniser.

    Args:
        config: the settings.
        network: the model of transformers; only its text side is used.
        tokenizer: of transformers.
    """

    def __init__(self, config: ClipConfig, network: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors: float32 [N, E] of length 1, in the order given, without gradients.

        Raises:
            InputError: `texts` is one string, or holds something else than strings.
        """
        texts = check_strings(texts)
        device = self.network.logit_scale.device
        batches = [texts[start : start + _TEXTS_PER_BATCH] for start in range(0, len(texts), _TEXTS_PER_BATCH)]
        with torch.no_grad():
            encoded = [self._encode_batch(batch, device) for batch in batches]
        return torch.cat(encoded) if encoded else torch.empty(0, self.config.embedding_dim, device=device)

    def _encode_batch(self, texts: list[str], device: torch.device) -> Tensor:
        cut = [text[: self.config.max_tokens * _MAX_CHARACTERS_PER_TOKEN] for text in texts]
        is_clip = self.config.name == "clip"
        if not is_clip:  # trained on lower case, and on texts padded to the full length, the padding seen as well
            cut = [text.lower() for text in cut]
        tokens = self._tokenizer(
            cut,
            padding=True if is_clip else "max_length",
            truncation=True,
            max_length=self.config.max_tokens,
            return_tensors="pt",
        )
        known = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")[: 2 if is_clip else 1]}
        return F.normalize(pooled(self.network.get_text_features(**known)), dim=1)


def load_clip_text(config: ClipConfig, folder: Path) -> ClipText:
    """The text tower on the CPU, without the image tower.

    Raises:
        ModelError: transformers cannot be imported.
        WeightsDamagedError: the files are not those of such a model.
    """
    text = read_clip(config, folder)
    del text.network.vision_model
    return text


def read_clip(config: ClipConfig, folder: Path) -> ClipText:
    """The text tower on the CPU, its network still with the image tower. Raises as `load_clip_text`."""
    network_class, tokenizer_class = _import_transformers(_CLASSES[config.name])
    from huggingface_hub.errors import StrictDataclassError

    try:
        network, found = network_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (*_LOADER_ERRORS, StrictDataclassError) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WeightsDamagedError(f"{folder} cannot be loaded as a {config.name} model: {text}") from error
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise WeightsDamagedError(
            f"{folder} lacks {len(missing)} weights of a {config.name} model, {missing[0]!r} first"
        )
    return ClipText(config, network.float().requires_grad_(False), tokenizer).eval()


def _import_transformers(network_class: str) -> tuple[Any, Any]:
    try:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        return getattr(transformers, network_class), transformers.AutoTokenizer
    except (ImportError, AttributeError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise ModelError(
            f"{network_class} cannot be imported from transformers ({' '.join(str(error).split())[:120]}): run `pip "
            f"install 'videobert-search[backbones]'`; a torchvision that does not fit torch {torch.__version__} also "
            "does this: uninstall it"
        ) from error


def pooled(output: Any) -> Tensor:
    """The embeddings: transformers 4 returns them, 5 among others."""
    return output if isinstance(output, Tensor) else output.pooler_output
