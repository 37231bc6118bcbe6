"""What training minimises.

Shapes: M queries or hidden places, N or B videos, E = `embedding_dim`, V tokens or visual words, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    queries: Tensor,
    videos: Tensor,
    video_of_query: Tensor,
    scale: Tensor | float,
    also_fits: Tensor | None = None,
) -> Tensor:
    """How badly queries and their videos find each other among all others of the batch, in nats.

    With s[m, n] = scale · cosine, and for each query m with its video n, the mean of

        -log( exp s[m, n] / (exp s[m, n] + Σ over videos n' not of m   exp s[m, n']) )      a query looks for its video
        -log( exp s[m, n] / (exp s[m, n] + Σ over queries m' not of n  exp s[m', n]) )      a video for its query

    so that several queries of one video are never each other's negatives, and neither are pairs that `also_fits` names:
    other videos with the very same text, say. Guessing scores log N for the first and, with k queries a video,
    log(M - k + 1) for the second, and the mean of the two for the whole.

    Args:
        queries: float [M, E] of length 1.
        videos: float [N, E] of length 1.
        video_of_query: int64 [M], the row in `videos` of each query's video.
        scale: inverse of the temperature, above 0.
        also_fits: bool [M, N], pairs that are no negatives although the query was not written for the video.

    Returns:
        A scalar.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4; made
    symmetric by Radford et al., "CLIP", 2021, figure 3. Departure: several positives, each against the negatives only.
    """
    similarity = scale * queries @ videos.T  # [M, N]
    is_match = video_of_query[:, None] == torch.arange(len(videos), device=videos.device)
    no_negative = is_match if also_fits is None else is_match | also_fits
    negatives = similarity.masked_fill(no_negative, -torch.inf)
    positives = similarity.gather(1, video_of_query[:, None])[:, 0]
    query_loss = torch.logaddexp(positives, negatives.logsumexp(dim=1)) - positives
    video_loss = torch.logaddexp(positives, negatives.logsumexp(dim=0)[video_of_query]) - positives
    return (query_loss + video_loss).mean() / 2


def masked_text_loss(logits: Tensor, token_ids: Tensor) -> Tensor:
    """How badly hidden text tokens are guessed, in nats: the mean of -log softmax(logits)[token].

    Guessing scores log V.

    Args:
        logits: float [M, V], of the M hidden tokens, at least one.
        token_ids: int64 [M], what they were.

    Returns:
        A scalar.

    Source: Devlin et al., "BERT", 2019, section 3.1, task 1.
    """
    return F.cross_entropy(logits, token_ids)


def masked_visual_word_loss(logits: Tensor, words: Tensor) -> Tensor:
    """How badly the visual words of hidden frames are guessed, in nats: the mean of -log softmax(logits)[word].

    Guessing scores log V; always naming the words by their frequency scores the entropy of the words, which is less.

    Args:
        logits: float [M, V], of the M hidden frame tokens, at least one.
        words: int64 [M], the words of `VisualVocabulary.words`.

    Returns:
        A scalar.

    Source: Sun et al., "VideoBERT", 2019, section 3.2.
    """
    return F.cross_entropy(logits, words)


def alignment_loss(logits: Tensor, belongs: Tensor) -> Tensor:
    """How badly it is told whether a text belongs to its video, in nats: the mean of

        -log sigmoid(logit) where it does,  -log(1 - sigmoid(logit)) where it does not.

    Guessing scores log 2.

    Args:
        logits: float [B], above 0 for "belongs", at least one.
        belongs: bool [B].

    Returns:
        A scalar.

    Source: Sun et al., "VideoBERT", 2019, section 3.2, linguistic-visual alignment.
    """
    return F.binary_cross_entropy_with_logits(logits, belongs.to(logits.dtype))


def multi_label_loss(logits: Tensor, labels: Tensor, positive_weight: Tensor | None = None) -> Tensor:
    """How badly any number of classes of each video is told, in nats: the mean over videos and classes of

        -w[c] · y · log sigmoid(s) - (1 - y) · log(1 - sigmoid(s)),  with score s and label y of video and class c.

    Guessing (s = 0) scores log 2 with w = 1.

    Args:
        logits: float [B, C], any real numbers.
        labels: bool or float [B, C], 0 to 1.
        positive_weight: float [C], w; the ratio of negatives to positives balances rare classes. None: 1.

    Returns:
        A scalar.

    Source: the cross-entropy of independent Bernoulli variables. Departure from the article that this project follows:
    it puts `BCELoss` on raw scores, which is wrong, as that function takes probabilities and fails outside of 0 to 1;
    `BCELoss` on a sigmoid would be right but loses precision where the sigmoid rounds to 0 or 1.
    """
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=positive_weight)
