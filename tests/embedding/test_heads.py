"""M3's heads: what they say about a text, and their files."""

import collections
import math

import pytest
import torch

from resumecheck.embedding.collator import tokenize
from resumecheck.embedding.heads import Heads, load_heads
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.losses.unified import UnifiedObjective
from resumecheck.embedding.model import BiEncoder, encode, load_encoder, load_tokenizer
from resumecheck.errors import UsageError
from tests.embedding import tiny

VOCABULARY, WIDTH, LONGEST = 12, 6, 5
MARKS = frozenset({0, 1, 2, 3})  # padding, unknown, first and last token
TEXTS = [[2, 7, 4, 7, 3], [2, 5, 1, 3], [2, 3], [2, 9, 8, 9, 3]]


@pytest.fixture
def heads():
    torch.manual_seed(1)
    return Heads(WIDTH, VOCABULARY, marks=MARKS, colbert_dim=3).double()


@pytest.fixture
def parts(encoder):
    """Encoder, tokenizer and directory of the tiny model."""
    return load_encoder(str(encoder)), load_tokenizer(str(encoder)), encoder


def batch(side, padding=1e3):
    """Token vectors and tokens of the texts, padded on a side; what is padding holds values that must not count."""
    draw = torch.Generator().manual_seed(2)
    hidden = padding * torch.ones(len(TEXTS), LONGEST, WIDTH, dtype=torch.float64)
    ids, mask = torch.full((len(TEXTS), LONGEST), 6), torch.zeros(len(TEXTS), LONGEST, dtype=torch.long)
    for row, text in enumerate(TEXTS):
        at = slice(len(text)) if side == "right" else slice(LONGEST - len(text), LONGEST)
        hidden[row, at] = torch.randn(len(text), WIDTH, generator=draw, dtype=torch.float64)
        ids[row, at], mask[row, at] = torch.tensor(text), 1
    return hidden, {"input_ids": ids, "attention_mask": mask}


def vectors_of(hidden, mask, row):
    return [hidden[row, place].tolist() for place in range(LONGEST) if mask[row, place]]


def linear(layer, vector):
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [math.fsum(w * x for w, x in zip(weights, vector, strict=True)) + bias for weights, bias in rows]


# --- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1e3, -1e3])  # one of them would have a large weight
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_term_has_its_largest_weight_and_marks_and_padding_have_none(heads, side, padding):
    hidden, tokens = batch(side, padding)
    found = heads(hidden, tokens, normalize=True)["sparse"]
    assert found.shape == (len(TEXTS), VOCABULARY)
    for row, text in enumerate(TEXTS):
        expected = [0.0] * VOCABULARY
        for token, vector in zip(text, vectors_of(hidden, tokens["attention_mask"], row), strict=True):
            if token not in MARKS:
                expected[token] = max(expected[token], *linear(heads.sparse_linear, vector))
        assert found[row].tolist() == pytest.approx(expected, abs=1e-10)
    assert (found > 0).sum() >= 3


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_token_but_the_first_has_a_vector(heads, side, normalize):
    hidden, tokens = batch(side)
    found = heads(hidden, tokens, normalize=normalize)
    for row, text in enumerate(TEXTS):
        expected = [
            linear(heads.colbert_linear, vector) for vector in vectors_of(hidden, tokens["attention_mask"], row)[1:]
        ]
        if normalize:
            expected = [[x / math.sqrt(math.fsum(y * y for y in vector)) for x in vector] for vector in expected]
        vectors = found["multi_vector"][row][found["counted"][row]].tolist()
        assert len(vectors) == len(text) - 1
        for vector, looked_for in zip(vectors, expected, strict=True):
            assert vector == pytest.approx(looked_for, abs=1e-10)


def test_no_gradient_reaches_padding_and_the_first_token(heads):
    hidden, tokens = batch("right")
    hidden.requires_grad_(True)
    found = heads(hidden, tokens, normalize=True)
    (found["sparse"].sum() + found["multi_vector"][found["counted"]].sum()).backward()
    reached = hidden.grad.abs().sum(dim=2) > 0
    assert torch.equal(reached, (tokens["attention_mask"] == 1) & (torch.arange(LONGEST) > 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_they_say_is_in_single_precision_whatever_the_model_has(heads, dtype):
    hidden, tokens = batch("right")
    found = heads.to(dtype)(hidden.to(dtype), tokens, normalize=True)
    assert (found["sparse"].dtype, found["multi_vector"].dtype) == (torch.float32, torch.float32)


def test_the_dense_embedding_is_the_same_with_heads_and_without(parts):
    encoder, tokenizer, directory = parts
    heads = load_heads(str(directory), encoder, tokenizer, colbert_dim=4, seed=1)
    with_heads = BiEncoder(encoder, pooling="cls", normalize=True, heads=heads).eval()
    tokens = tokenize(tokenizer, tiny.texts(3, seed=1), 12)
    assert torch.equal(with_heads.represent(tokens)["dense"], with_heads.embed(tokens))
    without = BiEncoder(encoder, pooling="cls", normalize=True)
    texts = tiny.texts(5, seed=2)
    first, second = (encode(model, tokenizer, texts, longest=12, batch_size=2) for model in (with_heads, without))
    assert torch.equal(first, second)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_chunks_change_nothing_but_memory(parts, size):
    encoder, tokenizer, directory = parts
    tiny.set_dropout(encoder, 0.0)
    heads = load_heads(str(directory), encoder, tokenizer, colbert_dim=4, seed=1)
    model = BiEncoder(encoder, pooling="cls", normalize=True, heads=heads).double().train()
    queries, passages = (tokenize(tokenizer, tiny.texts(count, seed=count), 16) for count in (3, 6))
    found = []
    for chunk in (None, size):
        model.zero_grad()
        loss = UnifiedObjective(Objective(0.1))(*model(queries, passages, chunk).values(), self_distill=True)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-13) for a, b in zip(*found, strict=True))
    assert all(parameter.grad.any() for parameter in heads.parameters() if parameter.dim() == 2)


# --- new heads -------------------------------------------------------------------------------------------------------


def test_new_heads_follow_from_the_seed_alone_and_leave_the_random_stream_as_it_is(parts):
    encoder, tokenizer, directory = parts

    def made(seed, state):
        torch.manual_seed(state)
        found = load_heads(str(directory), encoder, tokenizer, colbert_dim=-1, seed=seed).state_dict()
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(state)))
        return torch.cat([tensor.flatten() for tensor in found.values()])

    assert torch.equal(made(3, 1), made(3, 2))
    assert not torch.equal(made(3, 1), made(4, 1))


@pytest.mark.parametrize(("given", "expected"), [(-1, 16), (0, 16), (5, 5)])
def test_the_vectors_of_tokens_have_the_dimensions_that_are_asked_for(parts, given, expected):
    encoder, tokenizer, directory = parts
    heads = load_heads(str(directory), encoder, tokenizer, colbert_dim=given, seed=1)
    assert heads.colbert_linear.out_features == expected


def test_the_marks_of_the_tokenizer_are_no_terms(parts):
    encoder, tokenizer, directory = parts
    heads = load_heads(str(directory), encoder, tokenizer, colbert_dim=-1, seed=1)
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    assert heads.marks == frozenset(tokenizer.convert_tokens_to_ids(list(names)))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(parts):
    encoder, tokenizer, directory = parts
    heads = load_heads(str(directory), encoder, tokenizer, colbert_dim=4, seed=1)
    return BiEncoder(encoder, pooling="cls", normalize=True, heads=heads)


def test_heads_come_back_bit_for_bit(model, parts, tmp_path):
    model.write(tmp_path)
    found = load_heads(str(tmp_path), *parts[:2], colbert_dim=4, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.heads.parameters(), found.parameters(), strict=True))
    with torch.no_grad():
        found.sparse_linear.bias += 1
    other = BiEncoder(parts[0], pooling="cls", normalize=True, heads=found)
    other.read_weights(tmp_path)
    assert torch.equal(found.sparse_linear.bias, model.heads.sparse_linear.bias)


def test_gathered_heads_are_written_to_the_same_files(model, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    model.write(tmp_path / "a")
    model.write(tmp_path / "b", model.state_dict())
    contents = [{path.name: path.read_bytes() for path in (tmp_path / part).iterdir()} for part in "ab"]
    assert contents[0].keys() == contents[1].keys()
    for name in ("colbert_linear.pt", "sparse_linear.pt"):
        first, second = (torch.load(tmp_path / part / name, weights_only=True) for part in "ab")
        assert first.keys() == second.keys() == {"weight", "bias"}
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_half_precision_heads_of_another_program_are_read(parts, tmp_path):
    state = {"weight": torch.ones(1, 16).half(), "bias": torch.full((1,), 0.5).half()}
    torch.save(collections.OrderedDict(state), tmp_path / "sparse_linear.pt")
    state = {"weight": torch.eye(16).half(), "bias": torch.zeros(16).half()}
    torch.save(collections.OrderedDict(state), tmp_path / "colbert_linear.pt")
    heads = load_heads(str(tmp_path), *parts[:2], colbert_dim=-1, seed=1)
    assert torch.equal(heads.colbert_linear.weight, torch.eye(16))
    assert torch.equal(heads.sparse_linear.bias, torch.tensor([0.5]))


@pytest.mark.parametrize("name", ["colbert_linear.pt", "sparse_linear.pt"])
def test_one_head_without_the_other_is_an_error_that_names_it(model, parts, tmp_path, name):
    model.write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=rf"{name}: missing"):
        load_heads(str(tmp_path), *parts[:2], colbert_dim=4, seed=1)


def test_vectors_of_other_dimensions_are_an_error_that_says_what_to_give(model, parts, tmp_path):
    model.write(tmp_path)
    with pytest.raises(UsageError, match=r"colbert_linear\.pt: found bias \[4\].*expected bias \[16\]") as error:
        load_heads(str(tmp_path), *parts[:2], colbert_dim=-1, seed=1)
    assert str(error.value).endswith("Give --colbert_dim 4.")


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


@pytest.mark.parametrize("content", [Harmful(), [1], {"weight": 1}, {"other": torch.zeros(1)}])
def test_a_file_that_is_no_head_is_an_error_and_no_code_in_it_is_run(model, parts, tmp_path, content):
    model.write(tmp_path)
    torch.save(content, tmp_path / "sparse_linear.pt")
    with pytest.raises(UsageError, match=r"sparse_linear\.pt: "):
        load_heads(str(tmp_path), *parts[:2], colbert_dim=4, seed=1)


def test_heads_of_an_earlier_run_do_not_stay_beside_weights_without_heads(model, parts, tmp_path):
    model.write(tmp_path)
    BiEncoder(parts[0], pooling="cls", normalize=True).write(tmp_path)
    assert not list(tmp_path.glob("*.pt"))


def test_heads_that_cannot_be_asked_for_are_not_made_anew(parts, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"some/model: whether it has the head colbert_linear\.pt could not be found"):
        load_heads("some/model", *parts[:2], colbert_dim=-1, seed=1, cache_dir=str(tmp_path))
