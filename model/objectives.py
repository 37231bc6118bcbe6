"""What training minimises. Shapes: M queries, N videos, E = `embedding_dim`."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_loss(queries: Tensor, videos: Tensor, video_of_query: Tensor, scale: Tensor | float) -> Tensor:
    """How badly queries and their videos find each other among all others of the batch, in nats.

    With s[m, n] = scale · cosine, and for each query m with its video n, the mean of

        -log( exp s[m, n] / (exp s[m, n] + Σ over videos n' not of m   exp s[m, n']) )      a query looks for its video
        -log( exp s[m, n] / (exp s[m, n] + Σ over queries m' not of n  exp s[m', n]) )      a video for its query

    so that several queries of one video are never each other's negatives. Guessing scores log N for the first and,
    with k queries a video, log(M - k + 1) for the second, and the mean of the two for the whole.

    Args:
        queries: float [M, E] of length 1.
        videos: float [N, E] of length 1.
        video_of_query: int64 [M], the row in `videos` of each query's video.
        scale: inverse of the temperature, above 0.

    Returns:
        A scalar.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4; made
    symmetric by Radford et al., "CLIP", 2021, figure 3. Departure: several positives, each against the negatives only.
    """
    similarity = scale * queries @ videos.T  # [M, N]
    is_match = video_of_query[:, None] == torch.arange(len(videos), device=videos.device)
    negatives = similarity.masked_fill(is_match, -torch.inf)
    positives = similarity.gather(1, video_of_query[:, None])[:, 0]
    query_loss = torch.logaddexp(positives, negatives.logsumexp(dim=1)) - positives
    video_loss = torch.logaddexp(positives, negatives.logsumexp(dim=0)[video_of_query]) - positives
    return (query_loss + video_loss).mean() / 2
