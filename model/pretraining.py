"""Self-supervised pretraining of the fusion tower: four objectives on stored frame features and transcripts.

Shapes: B items, T frames of the longest, K tokens per frame, D numbers per token, L text tokens of the longest, E =
`embedding_dim`, W = width of the tower, M hidden places.

Source: Sun et al., "VideoBERT", 2019, section 3.2 and 3.3: text only, video only and both, all through one tower.
Departures: hidden frames are replaced by a learned vector, as video tokens are features rather than visual words, which
are only what is to be guessed; hidden text tokens pass through the frozen BERT before they reach the tower; and the
contrastive objective is added, which is what a search needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.config import VideoBertConfig
from model.errors import ModelError
from model.heads import AlignmentHead, MaskedTextHead, VisualWordHead, initialise
from model.inputs import VideoInputs, check_videos
from model.masking import Hidden, choose_frames, mask_tokens
from model.objectives import alignment_loss, contrastive_loss, masked_text_loss, masked_visual_word_loss
from model.pairing import halves, num_different, same_text, strangers
from model.text_encoder import TokenStates
from model.videobert import VideoBert
from model.visual_vocabulary import VisualVocabulary

OBJECTIVES = ("masked_text", "masked_visual", "alignment", "contrastive")
_TEXT_ONLY, _VIDEO_ONLY, _NUM_REGIMES = 0, 1, 3  # the third is both
_START_SCALE, _MAX_SCALE = 20.0, 100.0  # of cosines; the most is CLIP's


class FeatureBatch(NamedTuple):
    """A batch of videos or moments.

    Attributes:
        features: float [B, T, K, D]; float16 will do. What stands in masked frames is not looked at.
        frame_mask: bool [B, T], True for real frames; all False for a text without video.
        frame_times_s: float [B, T], seconds.
        texts: B texts; None or blank for a video without text.
    """

    features: Tensor
    frame_mask: Tensor
    frame_times_s: Tensor
    texts: list[str | None]

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The same batch on another device."""
        features, frame_mask = self.features.to(device), self.frame_mask.to(device)
        return FeatureBatch(features, frame_mask, self.frame_times_s.to(device), self.texts)


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """How to pretrain.

    Attributes:
        masked_text_weight, masked_visual_weight, alignment_weight, contrastive_weight: of the objectives in the sum; an
            objective of weight 0 is not computed.
        text_mask_rate: share of the text tokens that are to be guessed.
        frame_mask_rate: share of the frames whose visual words are to be guessed.
        stranger_share: share of the items that get the text of another for the alignment objective.
        half_share: share of the longer texts of which the contrastive objective looks for one half and shows the other
            with the video; the others are looked for as a whole, by the frames alone.
        trained_parts: what the names of the weights of the `VideoBert` begin with that learn. BERT and the CNN are
            frozen by default; the CNN has to be, as pretraining sees stored features and no pixels.
        seed: of the fresh weights of the heads.
    """

    masked_text_weight: float = 1.0
    masked_visual_weight: float = 1.0
    alignment_weight: float = 1.0
    contrastive_weight: float = 1.0
    text_mask_rate: float = 0.15
    frame_mask_rate: float = 0.15
    stranger_share: float = 0.5
    half_share: float = 0.5
    trained_parts: tuple[str, ...] = ("fusion.", "gate")
    seed: int = 0

    def __post_init__(self) -> None:
        for name, weight in self.weights().items():
            if not weight >= 0:
                raise ModelError(f"{name}_weight must be at least 0, got {weight!r}")
        if not any(self.weights().values()):
            raise ModelError("at least one objective must have a weight above 0, got none")
        for name in ("text_mask_rate", "frame_mask_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ModelError(f"{name} must be above 0 and below 1, got {getattr(self, name)!r}")
        for name in ("stranger_share", "half_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}")

    def weights(self) -> dict[str, float]:
        """Weight of each objective, by its name in `OBJECTIVES`."""
        return {name: getattr(self, f"{name}_weight") for name in OBJECTIVES}


class PretrainingModel(nn.Module):
    """A `VideoBert` with what pretraining needs around it: visual vocabulary, heads, mask vector, temperature.

    What of it search uses: the weights of the tower, and of other trained parts, saved by

        save_checkpoint(model.videobert, model.checkpoint_config, base, path)

    Heads, mask vector, temperature and vocabulary only serve to train and are in no checkpoint. The tower reaches the
    joint space by its residual, which the contrastive objective trains: with the frames alone, and with half of a text
    beside them. So the gate of a model that has learnt nothing is opened at the start, with the layers behind it at
    zero, which leaves the vectors as they are (but for those of videos with a text in a model with a frame head, where
    an open gate lets a text count by its agreement). With `contrastive_weight` 0 the tower learns but search stays as
    it was, until the checkpoint is trained on.

    Dropout draws from PyTorch's own random numbers, all else from the generator that `forward` is given.

    Attributes:
        videobert: the model, changed in place.
        vocabulary: of the same frame features.
        settings: how to pretrain.
    """

    def __init__(
        self, videobert: VideoBert, vocabulary: VisualVocabulary, settings: PretrainingSettings | None = None
    ) -> None:
        """Freezes what is not trained.

        Raises:
            ModelError: the vocabulary is one of other features, or `trained_parts` names no weights, or the CNN's.
        """
        super().__init__()
        tokens_per_frame, feature_dim = videobert.feature_shape
        if vocabulary.feature_dim != feature_dim:
            raise ModelError(
                f"the vocabulary must be one of features of {feature_dim} numbers, got {vocabulary.feature_dim}: fit "
                "one on the features of this model"
            )
        self.videobert, self.vocabulary = videobert, vocabulary
        self.settings = settings or PretrainingSettings()
        width = videobert.config.fusion.transformer.width
        self.masked_text = MaskedTextHead(width, videobert.text_encoder.word_embedding)
        self.masked_visual = VisualWordHead(width, vocabulary.num_words)
        self.alignment = AlignmentHead(width)
        self.mask_vector = nn.Parameter(torch.empty(tokens_per_frame, feature_dim))
        self.log_scale = nn.Parameter(torch.tensor(_START_SCALE).log())
        generator = torch.Generator().manual_seed(self.settings.seed)
        for head in (self.masked_text, self.masked_visual, self.alignment):
            initialise(head, generator)
        nn.init.normal_(self.mask_vector, generator=generator)
        _train_only(videobert, self.settings.trained_parts)
        _open_gate(videobert)
        self.to(videobert.device)

    @property
    def checkpoint_config(self) -> VideoBertConfig:
        """Settings of `videobert` under which its checkpoint holds all that was trained, now or before."""
        config = self.videobert.config
        return replace(config, trained=tuple(dict.fromkeys((*config.trained, *self.settings.trained_parts))))

    def train(self, mode: bool = True) -> PretrainingModel:
        """As `nn.Module.train`, but for frozen encoders, which keep their statistics and know no dropout."""
        super().train(mode)
        for part in (self.videobert.text_encoder, self.videobert.frame_encoder):
            if not any(weight.requires_grad for weight in part.parameters()):
                part.eval()
        return self

    def forward(self, batch: FeatureBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: at least one item, each with a frame or a text.
            generator: of masks, regimes and pairs; on the CPU. The same generator and batch give the same losses
                whatever the device.

        Returns:
            A scalar for each objective by its name in `OBJECTIVES`, in that order. Left out are those of weight 0 and
            those for which the batch holds nothing: masked text needs a text, masked frames a video of two frames or
            more, alignment and the contrastive objective need videos with a text and two different texts.

        Raises:
            InputError: shapes or lengths disagree, or an item has neither frames nor text.
        """
        videos = check_videos(*batch, self.videobert.feature_shape, self.videobert.device)
        weights, losses = self.settings.weights(), dict[str, Tensor]()
        if weights["masked_text"] or weights["masked_visual"]:
            losses |= self.completion_losses(self.hide(videos, generator))
        has_text = torch.tensor([bool(text) for text in videos.texts]).to(videos.frame_mask.device)
        pairs = (has_text & videos.frame_mask.any(dim=1)).nonzero()[:, 0]
        if weights["alignment"] and len(pairs) and num_different(videos.texts) > 1:
            losses["alignment"] = self._alignment_loss(videos, pairs, generator)
        if weights["contrastive"] and num_different([videos.texts[row] for row in pairs.tolist()]) > 1:
            losses["contrastive"] = self._contrastive_loss(videos, pairs, generator)
        return {name: losses[name] for name in OBJECTIVES if name in losses and weights[name]}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the losses, a scalar to call `backward` on; 0 for none, with a gradient of 0."""
        weights = self.settings.weights()
        return sum((weights[name] * loss for name, loss in losses.items()), 0.0 * self.log_scale)

    def hide(self, videos: VideoInputs, generator: torch.Generator) -> Hidden:
        """Shows each video with a text in one of the three regimes, drawn anew, and hides tokens and frames."""
        true_ids, token_mask = self._tokenise(videos.texts)
        frame_mask = videos.frame_mask
        is_pair = token_mask.any(dim=1, keepdim=True) & frame_mask.any(dim=1, keepdim=True)
        regime = torch.randint(_NUM_REGIMES, is_pair.shape, generator=generator).to(is_pair.device)
        token_mask = token_mask & ~(is_pair & (regime == _VIDEO_ONLY))
        frame_mask = frame_mask & ~(is_pair & (regime == _TEXT_ONLY))
        tokenizer = self.videobert.text_encoder.tokenizer
        token_ids, token_chosen = mask_tokens(
            true_ids,
            token_mask,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
            vocab_size=self.videobert.config.text.vocab_size,
            rate=self.settings.text_mask_rate,
            generator=generator,
        )
        frame_chosen = choose_frames(frame_mask, self.settings.frame_mask_rate, generator)
        features = torch.where(frame_chosen[:, :, None, None], self.mask_vector, videos.features)
        true_words = self._words(videos.features, frame_chosen)
        return Hidden(
            token_ids,
            token_mask,
            token_chosen,
            true_ids,
            features,
            frame_mask,
            frame_chosen,
            true_words,
            videos.times_s,
        )

    def completion_losses(self, hidden: Hidden) -> dict[str, Tensor]:
        """The losses of guessing what is hidden: "masked_text" and "masked_visual", where there is any of the kind."""
        tokens = self._token_states(hidden.token_ids, hidden.token_mask)
        states = self.videobert.fusion(tokens, hidden.features, hidden.frame_mask, hidden.frame_times_s).states
        num_tokens, tokens_per_frame = hidden.token_ids.shape[1], hidden.features.shape[2]
        text_states = states[:, 1 : 1 + num_tokens]  # after [CLS]
        video_states = states[:, 2 + num_tokens : -1].unflatten(1, (-1, tokens_per_frame))  # between [>] and [SEP]
        losses = {}
        if hidden.token_chosen.any():
            logits = self.masked_text(text_states[hidden.token_chosen])
            losses["masked_text"] = masked_text_loss(logits, hidden.true_ids[hidden.token_chosen])
        if hidden.frame_chosen.any():
            logits = self.masked_visual(video_states[hidden.frame_chosen].flatten(0, 1))
            words = hidden.true_words[hidden.frame_chosen].flatten()
            losses["masked_visual"] = masked_visual_word_loss(logits, words)
        return losses

    def _alignment_loss(self, videos: VideoInputs, pairs: Tensor, generator: torch.Generator) -> Tensor:
        text_of = strangers(videos.texts, self.settings.stranger_share, generator).to(pairs.device)
        tokens = self._encode([videos.texts[row] for row in text_of[pairs].tolist()])
        cls = self.videobert.fusion(tokens, *_frames(videos, pairs)).states[:, 0]
        return alignment_loss(self.alignment(cls), text_of[pairs] == pairs)

    def _contrastive_loss(self, videos: VideoInputs, pairs: Tensor, generator: torch.Generator) -> Tensor:
        texts = [videos.texts[row] for row in pairs.tolist()]
        asked, read = halves(texts, self.settings.half_share, generator)
        queries = self.videobert.text_encoder.pool(self._encode(asked))
        vectors = self.videobert.fuse(self._encode(read), *_frames(videos, pairs))
        scale = self.log_scale.exp().clamp(max=_MAX_SCALE)
        own = torch.arange(len(pairs), device=pairs.device)
        return contrastive_loss(queries, vectors, own, scale, same_text(texts).to(pairs.device))

    def _words(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Visual words of the chosen frames: [B, T, K, D] and bool [B, T] -> int64 [B, T, K], 0 elsewhere."""
        words = torch.zeros(features.shape[:3], dtype=torch.int64, device=features.device)
        if chosen.any():
            words[chosen] = self.vocabulary.words(features[chosen].flatten(0, 1)).unflatten(0, (-1, features.shape[2]))
        return words

    def _encode(self, texts: Sequence[str]) -> TokenStates:
        return self._token_states(*self._tokenise(texts))

    def _tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids int64 [B, L], and a mask bool [B, L]; no token for a blank text."""
        encoded = iter(self.videobert.text_encoder.tokenizer.encode_batch([text for text in texts if text]))
        rows = [torch.tensor(next(encoded) if text else [], dtype=torch.int64) for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        token_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(token_ids.shape[1]) < lengths[:, None]
        return token_ids.to(self.videobert.device), mask.to(self.videobert.device)

    def _token_states(self, token_ids: Tensor, mask: Tensor) -> TokenStates:
        """What BERT makes of the items that have tokens; zeros for the others."""
        encoder = self.videobert.text_encoder
        states = self.mask_vector.new_zeros(*token_ids.shape, self.videobert.embedding_dim)
        rows = mask.any(dim=1).nonzero()[:, 0]
        if len(rows):
            is_trained = any(weight.requires_grad for weight in encoder.parameters())
            with torch.set_grad_enabled(is_trained and torch.is_grad_enabled()):
                some = encoder(token_ids[rows], mask[rows])
            states = states.index_copy(0, rows, some.masked_fill(~mask[rows][:, :, None], 0.0).to(states.dtype))
        return TokenStates(states, mask)


def _frames(videos: VideoInputs, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return videos.features[rows], videos.frame_mask[rows], videos.times_s[rows]


def _train_only(videobert: VideoBert, parts: tuple[str, ...]) -> None:
    named = dict(videobert.named_parameters())
    for part in parts:
        if not any(name.startswith(part) for name in named):
            raise ModelError(f"trained_parts must begin the names of weights, such as 'fusion.', got {part!r}")
        if part.startswith("frame_encoder"):
            raise ModelError(f"trained_parts cannot name the frame encoder, as its features are stored, got {part!r}")
    for name, weight in named.items():
        weight.requires_grad_(name.startswith(parts))


@torch.no_grad()
def _open_gate(videobert: VideoBert) -> None:
    """Behind a closed gate nothing would learn: opens it, and sets the layers behind it to zero instead."""
    if videobert.gate == 0:
        videobert.gate.fill_(1.0)
        head = videobert.fusion.frame_head
        for layer in [videobert.fusion.output, *(() if head is None else (head[-1],))]:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
