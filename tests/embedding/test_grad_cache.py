"""GradCache has the loss and the gradients of the plain pass, with dropout, and holds one chunk at a time."""

import pytest
import torch

from resumecheck.embedding.losses.grad_cache import embed_in_chunks
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.model import BiEncoder, load_encoder, load_tokenizer, tokenize
from tests.embedding import tiny


@pytest.fixture
def model(encoder):
    def build(dtype=torch.float64, dropout=0.1):
        found = BiEncoder(load_encoder(str(encoder)), pooling="mean", normalize=True).to(dtype).train()
        tiny.set_dropout(found, dropout)
        return found

    return build


@pytest.fixture
def tokens(encoder):
    tokenizer = load_tokenizer(str(encoder))
    return tokenize(tokenizer, tiny.texts(7, seed=1), 16), tokenize(tokenizer, tiny.texts(21, seed=2), 16)


def plain_in_chunks(embed, tokens, size):
    """The same chunks with their whole graph kept: what `embed_in_chunks` must equal."""
    rows = len(tokens["input_ids"])
    starts = range(0, rows, size)
    return torch.cat([embed({name: part[at : at + size] for name, part in tokens.items()}) for at in starts])


def step(model, tokens, encode, seed=5):
    """Loss, gradients and the random state after a training step."""
    torch.manual_seed(seed)
    model.zero_grad()
    loss = Objective(temperature=0.05)(*(encode(model.embed, part) for part in tokens))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, torch.get_rng_state()


def largest_difference(first, second):
    """The largest difference of two sets of gradients, relative to the largest gradient of each parameter."""
    assert first.keys() == second.keys()
    scale = max(float(value.abs().max()) for value in first.values())
    return max(float((first[name] - second[name]).abs().max()) / scale for name in first)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_with_dropout_it_equals_the_plain_pass_over_the_same_chunks(model, tokens, size, dtype, bound):
    built = model(dtype)
    cached = step(built, tokens, lambda embed, part: embed_in_chunks(embed, part, size))
    plain = step(built, tokens, lambda embed, part: plain_in_chunks(embed, part, size))
    assert abs(float(cached[0] - plain[0])) <= bound * float(plain[0])
    assert largest_difference(plain[1], cached[1]) <= bound
    assert torch.equal(cached[2], plain[2])


def test_dropout_is_on_in_that_comparison(model, tokens):
    built = model()
    first, second = (step(built, tokens, lambda embed, part: embed_in_chunks(embed, part, 3), seed) for seed in (5, 6))
    assert abs(float(first[0] - second[0])) > 1e-3


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_one_chunk_equals_the_whole_batch_with_dropout(model, tokens, dtype, bound):
    built = model(dtype)
    cached = step(built, tokens, lambda embed, part: embed_in_chunks(embed, part, 21))
    plain = step(built, tokens, lambda embed, part: embed(part))
    assert abs(float(cached[0] - plain[0])) <= bound * float(plain[0])
    assert largest_difference(plain[1], cached[1]) <= bound


@pytest.mark.parametrize("size", [1, 3, 7])
def test_without_dropout_it_equals_the_whole_batch_for_any_chunk(model, tokens, size):
    built = model(dropout=0.0)
    cached = step(built, tokens, lambda embed, part: embed_in_chunks(embed, part, size))
    plain = step(built, tokens, lambda embed, part: embed(part))
    assert abs(float(cached[0] - plain[0])) <= 1e-12 * float(plain[0])
    assert largest_difference(plain[1], cached[1]) <= 1e-12


def test_other_masks_in_the_second_pass_would_be_noticed(model, tokens):
    from torch.utils.checkpoint import checkpoint

    def forgetful(embed, part):
        rows = len(part["input_ids"])
        chunks = [{name: value[at : at + 3] for name, value in part.items()} for at in range(0, rows, 3)]
        return torch.cat([checkpoint(embed, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])

    built = model()
    plain = step(built, tokens, lambda embed, part: plain_in_chunks(embed, part, 3))
    assert largest_difference(plain[1], step(built, tokens, forgetful)[1]) > 1e-3


def test_no_more_than_one_chunk_is_kept_for_the_backward_pass(model, tokens):
    """Counted in bytes of what autograd saves: the forward pass keeps embeddings and tokens, nothing of the encoder."""

    def kept(encode):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel() * t.element_size()) or t, lambda t: t
        ):
            encode(built.embed, tokens[1])
        return sum(sizes)

    built = model()
    assert kept(lambda embed, part: embed_in_chunks(embed, part, 3)) < 0.02 * kept(lambda embed, part: embed(part))
