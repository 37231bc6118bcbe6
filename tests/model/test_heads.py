"""Heads: shapes, what they are tied to, and the classification head that learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.errors import ModelError
from model.heads import AlignmentHead, ClassificationHead, MaskedTextHead, VisualWordHead, initialise, mean_state
from model.objectives import multi_label_loss
from model.text_encoder import TokenStates


def test_masked_text_head_is_berts_with_the_word_embeddings_as_decoder():
    transformers = pytest.importorskip("transformers.models.bert.modeling_bert")
    config = pytest.importorskip("transformers").BertConfig(vocab_size=50, hidden_size=16)
    theirs = transformers.BertLMPredictionHead(config).double()
    words = nn.Embedding(50, 16).double()
    ours = MaskedTextHead(16, words).double()
    torch.manual_seed(0)
    with torch.no_grad():
        ours.bias.normal_()
        theirs.decoder.weight.copy_(words.weight)
        theirs.decoder.bias.copy_(ours.bias)
        theirs.transform.dense.load_state_dict(ours.transform.state_dict())
        theirs.transform.LayerNorm.load_state_dict(ours.norm.state_dict())
    states = torch.randn(7, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(states), theirs(states))


def test_masked_text_head_owns_no_copy_of_the_word_embeddings():
    words = nn.Embedding(50, 16)
    head = MaskedTextHead(24, words)
    assert all(weight.shape != words.weight.shape for weight in head.parameters())
    head(torch.randn(2, 24)).sum().backward()
    assert words.weight.grad is not None


def test_visual_and_alignment_heads_give_their_shapes():
    assert VisualWordHead(16, 9)(torch.randn(5, 16)).shape == (5, 9)
    assert AlignmentHead(16)(torch.randn(5, 16)).shape == (5,)


def test_initialise_follows_from_the_generator_and_leaves_norms_at_one():
    first, second = VisualWordHead(16, 9), VisualWordHead(16, 9)
    for head in (first, second):
        initialise(head, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (first.norm.weight == 1).all()
    assert first.decoder.weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("multi_label", [False, True])
def test_classification_head_learns_classes_that_can_be_told_apart(multi_label):
    torch.manual_seed(0)
    classes = torch.arange(60) % 3
    inputs = F.one_hot(classes, 3).float() @ torch.randn(3, 8) + 0.1 * torch.randn(60, 8)
    head = ClassificationHead(8, 3, multi_label=multi_label, dropout=0.1)
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(100):
        logits = head(inputs)
        loss = multi_label_loss(logits, F.one_hot(classes, 3)) if multi_label else F.cross_entropy(logits, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probabilities = head.eval().probabilities(inputs).detach()
    assert torch.equal(probabilities.argmax(dim=1), classes)
    if not multi_label:
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(60))
    else:
        assert torch.equal(probabilities > 0.5, F.one_hot(classes, 3).bool())


def test_classification_head_drops_inputs_in_training_only():
    head, inputs = ClassificationHead(64, 2, multi_label=False, dropout=0.5), torch.ones(1, 64)
    assert not torch.equal(head.train()(inputs), head(inputs))
    assert torch.equal(head.eval()(inputs), head(inputs))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_classes": 1, "multi_label": False}, "num_classes must be at least 2, got 1"),
        ({"num_classes": 0, "multi_label": True}, "num_classes must be at least 1, got 0"),
        ({"num_classes": 2, "multi_label": True, "dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_classification_head_refuses_bad_settings(arguments, text):
    with pytest.raises(ModelError, match=text):
        ClassificationHead(8, **arguments)


def test_mean_state_does_not_look_at_padding():
    states = torch.tensor([[[1.0], [3.0], [torch.nan]], [[4.0], [torch.nan], [torch.nan]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert mean_state(TokenStates(states, mask)).tolist() == [[2.0], [4.0]]
