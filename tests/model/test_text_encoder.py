"""The text encoder against Hugging Face's BertModel with the same weights, and its promises about batches."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from model.errors import InputError, WeightsDamagedError
from model.text_encoder import load_bert_weights
from model.weights import WEIGHTS_FILES, load_text_encoder, verified_path

TEXTS = ["a dog on a skateboard", "", "Two cats sleep on the sofa while it is raining outside.", "café 🎬 東京"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("mini")


def test_states_equal_those_of_hugging_faces_bert(encoder):
    try:
        from transformers import BertConfig, BertModel
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"transformers, the oracle, cannot be imported: {error}")
    reference = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
        add_pooling_layer=False,
    ).eval()
    tensors = load_file(verified_path(WEIGHTS_FILES["mini"]["text"]))
    reference.load_state_dict({name: tensors[name] for name in reference.state_dict()})
    ids = encoder.tokenizer.encode_batch(TEXTS)
    with torch.no_grad():
        ours = encoder.token_states(TEXTS)
        for item, tokens in enumerate(ids):
            expected = reference(input_ids=torch.tensor([tokens])).last_hidden_state[0]
            torch.testing.assert_close(ours.states[item, : len(tokens)], expected, rtol=1e-4, atol=1e-5)


def test_tokeniser_writes_berts_ids(encoder):
    assert encoder.tokenizer.encode_batch(["hello world"]) == [[101, 7592, 2088, 102]]


def test_embedding_does_not_depend_on_the_batch(encoder, monkeypatch):
    monkeypatch.setattr("model.text_encoder._TEXTS_PER_BATCH", 5)
    texts = [*TEXTS, *(f"word {'and more ' * n}" for n in (9, 2, 30, 0, 5))]
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_embeddings_have_length_one_and_no_gradient(encoder):
    embeddings = encoder.encode(TEXTS)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(TEXTS)))


def test_likeness_follows_meaning(encoder):
    query, near, far = encoder.encode(["a puppy plays", "a young dog is having fun", "stock prices fell on Monday"])
    assert query @ near > query @ far + 0.3


@pytest.mark.parametrize("text", ["x" * 10_000, "word " * 2_000, "東" * 10_000])
def test_long_text_is_cut_to_max_tokens(encoder, text):
    assert len(encoder.tokenizer.encode_batch([text])[0]) <= encoder.config.max_tokens
    assert encoder.encode([text]).isfinite().all()


def test_no_texts_give_no_embeddings(encoder):
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.parametrize("texts", ["one string", [None], [3]])
def test_encode_refuses_what_is_not_a_sequence_of_strings(encoder, texts):
    with pytest.raises(InputError, match="texts must be a sequence of strings"):
        encoder.encode(texts)


def test_weights_of_another_model_are_refused():
    with pytest.raises(WeightsDamagedError, match="not the weights of the BERT encoder"):
        load_bert_weights(load_text_encoder("tiny_test"), {"embeddings.word_embeddings.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize("texts", [["a dog"], ["a dog on a beach " * 40] * 64], ids=["little", "much"])
def test_encoding_leaves_the_number_of_threads_as_it_was(texts):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        load_text_encoder("tiny_test").encode(texts)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
