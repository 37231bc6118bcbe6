"""The label files that come with the package: well-formed, and what the text encoder gives."""

from __future__ import annotations

import torch

from model.labels import dequantise, imagenet_classes, quantise


def test_there_are_a_thousand_classes_with_different_short_names():
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert len({name for name, _ in classes}) == 1000
    assert all(": " in description for _, description in classes)
    assert [classes[i][0] for i in (0, 281, 967, 999)] == ["tench", "tabby", "espresso", "toilet tissue"]


def test_shipped_embeddings_are_what_the_text_encoder_gives(mini_zero):
    rows = list(range(0, 1000, 33))
    exact = mini_zero.encode_text([imagenet_classes()[row][1] for row in rows])
    shipped = mini_zero.label_embeddings[rows]
    assert (exact * shipped).sum(dim=1).min() > 0.9999


def test_quantisation_is_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(7, 32), dim=1)
    codes, scales = quantise(embeddings)
    assert codes.dtype == torch.int8
    assert ((codes * scales - embeddings).abs() <= scales / 2 + 1e-7).all()
    torch.testing.assert_close(dequantise(codes, scales).norm(dim=1), torch.ones(7))
