"""The model that an index was made with, as this machine has it."""

from __future__ import annotations

from typing import Any

from indexer.config import IndexConfig
from indexer.errors import IndexSettingsError
from model.errors import ModelError
from model.weights import load_text_encoder, model_facts


def require_model(config: IndexConfig) -> None:
    """Raises IndexSettingsError unless the installed model is the one that the index was made with."""
    try:
        installed = model_facts(config.model).fingerprint
    except ModelError as error:
        raise _not_loaded(error) from error
    if installed != config.model_fingerprint:
        raise IndexSettingsError(
            f"the index was made with model {config.model!r} of fingerprint {config.model_fingerprint[:12]}, "
            f"the installed one is {installed[:12]}: install the version that made it, or index into a new folder"
        )


def text_encoder_of(config: IndexConfig) -> Any:
    """The text encoder of that model; raises IndexSettingsError likewise."""
    require_model(config)
    try:
        return load_text_encoder(config.model)
    except ModelError as error:
        raise _not_loaded(error) from error


def _not_loaded(error: ModelError) -> IndexSettingsError:
    return IndexSettingsError(f"the model of this index cannot be loaded: {error}")
