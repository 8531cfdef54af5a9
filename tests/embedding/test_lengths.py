"""Texts of like length are encoded together, and nothing else changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from resumecheck.embedding import lengths
from resumecheck.embedding.collator import tokenize
from resumecheck.embedding.lengths import embed_by_length, parts_of_like_length
from resumecheck.embedding.model import BiEncoder
from tests.embedding import tiny


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 3000))
def test_each_text_is_in_one_part_and_no_part_but_the_only_one_is_small(sizes, least):
    parts = parts_of_like_length(sizes, least)
    assert sorted(place for places, _ in parts for place in places) == list(range(len(sizes)))
    assert all(longest == max(sizes[place] for place in places) for places, longest in parts)
    assert len(parts) == 1 or all(len(places) * longest >= least for places, longest in parts)
    tops = [longest for _, longest in parts]
    assert tops == sorted(tops, reverse=True)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 3000))
def test_parts_never_have_more_padding_than_one_pass(sizes, least):
    padded = sum(len(places) * longest for places, longest in parts_of_like_length(sizes, least))
    assert sum(sizes) <= padded <= len(sizes) * max(sizes)


@pytest.mark.parametrize(
    ("write", "pooling", "side", "tolerance"),
    [
        (tiny.write_encoder, "mean", "right", 1e-12),
        (tiny.write_decoder, "last_token", "right", 1e-12),
        # Padding on the left moves the positions of a text, and LLaMA turns by positions in float32.
        (tiny.write_decoder, "last_token", "left", 1e-6),
    ],
)
def test_embeddings_and_gradients_are_those_of_one_pass(tmp_path, monkeypatch, write, pooling, side, tolerance):
    directory = write(tmp_path / "model")
    model = BiEncoder(AutoModel.from_pretrained(directory).double().eval(), pooling=pooling, normalize=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side=side)
    texts = [" ".join(tiny.WORDS[: 2 + 3 * place]) for place in (7, 0, 11, 3, 1, 9, 2, 10, 4, 0, 8, 5)]
    tokens = tokenize(tokenizer, texts, 40)
    weights = torch.randn(len(texts), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    passes = []

    def embed(part):
        passes.append(tuple(part["input_ids"].shape))
        return model.embed(part)

    def results(least):
        monkeypatch.setitem(lengths.LEAST_TOKENS, "cpu", least)
        model.zero_grad()
        found = embed_by_length(embed, tokens)
        (found * weights).sum().backward()
        return found, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    whole, expected = results(10**6)
    assert passes == [tuple(tokens["input_ids"].shape)]
    found, gradients = results(60)
    assert len(passes) > 3
    assert sum(rows * width for rows, width in passes[1:]) < 0.8 * tokens["input_ids"].numel()
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=tolerance)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=tolerance, atol=100 * tolerance)


def test_a_small_batch_is_encoded_in_one_pass():
    tokens = {"input_ids": torch.ones(4, 8, dtype=torch.long), "attention_mask": torch.ones(4, 8, dtype=torch.long)}
    seen = []
    embed_by_length(lambda part: seen.append(part) or torch.zeros(4, 2), tokens)
    assert seen == [tokens]
