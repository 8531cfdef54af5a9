import pytest
import safetensors.torch
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

from resumecheck.embedding.collator import Collator, tokenize
from resumecheck.embedding.dataset import Sample
from resumecheck.embedding.model import BiEncoder, encode, load_encoder, load_tokenizer, pool
from resumecheck.embedding.settings import EmbeddingSettings, read_settings
from resumecheck.errors import UsageError
from tests.embedding import tiny


@pytest.fixture
def model(encoder):
    return BiEncoder(load_encoder(str(encoder)), pooling="mean", normalize=True).eval()


@pytest.fixture
def tokenizer(encoder):
    return load_tokenizer(str(encoder))


# --- tokenizer -------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_padding(tmp_path):
    """A tokenizer without a token to pad with, which has these special tokens."""

    def write(**special):
        vocabulary = {word: place for place, word in enumerate([*special.values(), *tiny.WORDS])}
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=special.get("unk_token")))
        words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path / "tokenizer")
        return str(tmp_path / "tokenizer")

    return write


@pytest.mark.parametrize(
    ("special", "padding"),
    [({"unk_token": "<unk>", "eos_token": "</s>"}, "<unk>"), ({"eos_token": "</s>"}, "</s>")],
)
def test_a_tokenizer_without_a_token_to_pad_with_gets_one_and_padding_is_masked(without_padding, special, padding):
    tokenizer = load_tokenizer(without_padding(**special))
    assert tokenizer.pad_token == padding
    tokens = tokenize(tokenizer, ["ba be", "bi bo bu"], 8)
    lengths = tokens["attention_mask"].sum(dim=1).tolist()
    assert lengths == [2, 3]
    assert (tokens["input_ids"] == tokenizer.pad_token_id).sum() == 1


def test_a_tokenizer_that_has_nothing_to_pad_with_is_an_error(without_padding):
    with pytest.raises(UsageError, match="its tokenizer has no token to pad with"):
        load_tokenizer(without_padding())


# --- pooling ---------------------------------------------------------------------------------------------------------

HIDDEN = torch.arange(12.0).reshape(1, 4, 3)


@pytest.mark.parametrize(
    ("mask", "tokens"), [([1, 1, 1, 0], [0, 1, 2]), ([0, 1, 1, 1], [1, 2, 3]), ([1] * 4, range(4))]
)
def test_pooling_takes_tokens_and_never_padding_on_either_side(mask, tokens):
    mask, tokens = torch.tensor([mask]), list(tokens)
    assert torch.equal(pool(HIDDEN, mask, "cls")[0], HIDDEN[0, tokens[0]])
    assert torch.equal(pool(HIDDEN, mask, "last_token")[0], HIDDEN[0, tokens[-1]])
    assert torch.allclose(pool(HIDDEN, mask, "mean")[0], HIDDEN[0, tokens].mean(dim=0))


def test_each_row_of_a_batch_is_pooled_by_its_own_mask():
    hidden, mask = HIDDEN.repeat(2, 1, 1), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(pool(hidden, mask, "last_token"), HIDDEN[0, [1, 3]])


def test_an_unknown_pooling_is_an_error():
    with pytest.raises(ValueError, match="pooling 'max' is not known"):
        pool(HIDDEN, torch.ones(1, 4), "max")


# --- embeddings ------------------------------------------------------------------------------------------------------


def test_embeddings_have_length_one_only_when_normalized(model, tokenizer):
    tokens = tokenize(tokenizer, ["ba be", "da"], 8)
    assert torch.allclose(model.embed(tokens).norm(dim=1), torch.ones(2))
    model.normalize = False
    assert not torch.allclose(model.embed(tokens).norm(dim=1), torch.ones(2), atol=1e-2)


def test_padding_does_not_change_an_embedding(model, tokenizer):
    alone = model.embed(tokenize(tokenizer, ["ba be"], 16))
    padded = model.embed(tokenize(tokenizer, ["ba be", "da de di do du fa fe fi"], 16))[:1]
    assert torch.allclose(alone, padded, atol=1e-6)


def test_encode_keeps_the_order_of_the_texts(model, tokenizer):
    texts = tiny.texts(11, seed=5)
    together = encode(model, tokenizer, texts, longest=16, batch_size=4)
    alone = torch.cat([encode(model, tokenizer, [text], longest=16, batch_size=1) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_pooler_of_the_encoder_is_not_trained(model):
    assert not any(parameter.requires_grad for parameter in model.encoder.pooler.parameters())
    assert all(parameter.requires_grad for parameter in model.encoder.encoder.parameters())


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_the_collator_makes_queries_and_passages_row_by_row(tokenizer):
    collate = Collator(tokenizer, EmbeddingSettings(query_max_len=4, passage_max_len=6))
    batch = collate([Sample("ba be bi bo", ["da", "de di do du da de"]), Sample("fa", ["fe", "fi"])])
    assert batch["queries"]["input_ids"].shape == (2, 4)
    assert batch["passages"]["input_ids"].shape == (4, 6)
    assert tokenizer.decode(batch["passages"]["input_ids"][3], skip_special_tokens=True) == "fi"


def test_the_collator_pads_to_a_multiple(tokenizer):
    collate = Collator(tokenizer, EmbeddingSettings(), pad_to_multiple_of=8)
    assert collate([Sample("ba", ["da"])])["queries"]["input_ids"].shape == (1, 8)


# --- saving and loading ----------------------------------------------------------------------------------------------


def test_weights_come_back_bit_for_bit_under_the_names_of_the_encoder(model, encoder, tmp_path):
    for parameter in model.parameters():
        parameter.data.normal_()
    model.write(tmp_path)
    again = BiEncoder(load_encoder(str(encoder)), pooling="mean", normalize=True)
    again.read_weights(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    loaded = load_encoder(str(tmp_path)).state_dict()
    assert loaded.keys() == model.encoder.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.encoder.state_dict().items())


def test_gathered_weights_are_written_under_the_same_names(model, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    model.write(tmp_path / "a")
    model.write(tmp_path / "b", model.state_dict())
    names = [set(safetensors.torch.load_file(tmp_path / part / "model.safetensors")) for part in "ab"]
    assert names[0] == names[1]


def test_a_missing_and_an_unknown_weight_are_errors_that_name_them(model, tmp_path):
    model.write(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["embeddings.renamed"] = weights.pop("embeddings.word_embeddings.weight")
    safetensors.torch.save_file(weights, path)
    with pytest.raises(UsageError) as error:
        model.read_weights(tmp_path)
    assert "missing: embeddings.word_embeddings.weight; not known to the model: embeddings.renamed" in str(error.value)
    assert "--model_name_or_path" in str(error.value)


def test_a_weight_of_another_shape_is_an_error_that_names_it(model, tmp_path):
    model.write(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["embeddings.word_embeddings.weight"] = torch.zeros(3, 16)
    safetensors.torch.save_file(weights, path)
    with pytest.raises(UsageError, match=r"embeddings\.word_embeddings\.weight"):
        model.read_weights(tmp_path)


def test_a_directory_without_a_model_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no model could be loaded"):
        load_encoder(str(tmp_path))


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_come_back_from_a_model_directory(tmp_path):
    settings = EmbeddingSettings("last_token", False, 7, 9, "Find", "{}: {}")
    settings.write(tmp_path)
    assert read_settings(tmp_path) == settings


@pytest.mark.parametrize("recorded", ['{"pooling_mode_mean_tokens": true}', '{"pooling_mode": "mean"}'])
def test_the_pooling_of_a_sentence_transformers_model_is_read(tmp_path, recorded):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(recorded)
    assert read_settings(tmp_path).sentence_pooling_method == "mean"


def test_a_pooling_that_is_not_known_is_an_error(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "weightedmean"}')
    with pytest.raises(UsageError, match="'weightedmean' is not known; give --sentence_pooling_method"):
        read_settings(tmp_path)


def test_pooling_is_cls_where_nothing_is_recorded(tmp_path):
    assert read_settings(tmp_path).sentence_pooling_method == "cls"


def test_settings_that_cannot_be_read_are_an_error(tmp_path):
    (tmp_path / "embedding_config.json").write_text('{"pooling": 1}')
    with pytest.raises(UsageError, match=r"embedding_config\.json: not the settings"):
        read_settings(tmp_path)
