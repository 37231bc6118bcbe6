"""EfficientNet-Lite0 on real photographs, and its parts against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model.conse import class_probabilities
from model.errors import WeightsDamagedError
from model.frame_encoder import SameConv2d, TinyFrameEncoder, load_efficientnet_weights


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("skimage/data/chelsea.png", {"Egyptian cat", "tabby", "tiger cat"}),
        ("skimage/data/coffee.png", {"espresso", "cup", "coffee mug"}),
        ("skimage/data/motorcycle_left.png", {"moped", "motor scooter"}),
        ("sklearn/datasets/images/flower.jpg", {"daisy", "bee"}),
    ],
)
def test_best_class_of_a_photograph_is_right(mini, photograph, name, expected):
    features = mini.encode_frames(photograph(name)[None])
    best = mini.frame_encoder.logits(features)[0].argmax()
    assert mini.label_names[best] in expected


def test_rocket_is_among_the_best_five(mini, photograph):
    features = mini.encode_frames(photograph("skimage/data/rocket.jpg")[None])
    probabilities = class_probabilities(mini.frame_encoder.logits(features))[0]
    assert {"missile", "projectile"} & {mini.label_names[i] for i in probabilities.topk(5).indices}


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_convolution_pads_as_tensorflow_when_size_is_a_multiple_of_the_stride(kernel, stride):
    torch.manual_seed(0)
    layer = SameConv2d(4, 4, kernel, stride)
    images, size = torch.randn(2, 4, 12, 12), 12 // stride
    total = (size - 1) * stride + kernel - 12  # TensorFlow's definition of SAME
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(images, (before, after, before, after)), layer.weight, stride=stride)
    assert expected.shape[2:] == (size, size)
    torch.testing.assert_close(layer(images), expected)


def test_features_are_pooled_relu6_outputs(mini):
    frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    features = mini.encode_frames(frames)
    assert features.shape == (2, 1, 1280)
    assert features.min() >= 0
    assert features.max() <= 6


@pytest.mark.parametrize("colour", TinyFrameEncoder.COLOURS)
def test_tiny_encoder_knows_plain_colours(tiny, colour):
    frame = torch.tensor(TinyFrameEncoder.COLOURS[colour], dtype=torch.uint8).expand(1, 32, 32, 3)
    probabilities = class_probabilities(tiny.frame_encoder.logits(tiny.encode_frames(frame)))[0]
    assert tiny.label_names[probabilities.argmax()] == colour
    assert probabilities.max() > 0.9


def test_weights_of_another_network_are_refused(mini):
    with pytest.raises(WeightsDamagedError, match="not the weights of EfficientNet-Lite0"):
        load_efficientnet_weights(mini.frame_encoder, {"weight": torch.zeros(3)})
