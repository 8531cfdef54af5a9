"""Hard negatives, and the model as sentence-transformers loads it."""

import json

import pytest
import torch

from resumecheck.cli import main
from resumecheck.embedding.model import BiEncoder, encode, load_encoder, load_tokenizer
from resumecheck.embedding.settings import EmbeddingSettings, read_settings
from tests.embedding import tiny

pytestmark = pytest.mark.slow


def command(name, **options):
    return main([name, *(part for option, value in options.items() for part in (f"--{option}", str(value)))])


# --- mine ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def averaging(tmp_path):
    """An encoder that tells texts apart; the first token of an untrained one is nearly the same in all of them."""
    directory = tiny.write_encoder(tmp_path / "averaging")
    EmbeddingSettings(sentence_pooling_method="mean").write(directory)
    return directory


@pytest.fixture
def mined(averaging, data, tmp_path):
    """Mine with these changes; returns the rows."""

    def run(**changes):
        given = {"embedder_name_or_path": averaging, "input_file": data, "output_file": tmp_path / "mined.jsonl"}
        assert command("mine", **{**given, **changes}) == 0
        return [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]

    return run


def ranking(encoder, query, candidates):
    model = BiEncoder(load_encoder(str(encoder)), pooling="mean", normalize=True)
    tokenizer = load_tokenizer(str(encoder))
    vectors = encode(model, tokenizer, [query, *candidates], longest=64, batch_size=64)
    return [candidates[place] for place in (vectors[1:] @ vectors[0]).argsort(descending=True).tolist()]


def test_negatives_are_drawn_from_the_ranks_asked_for(mined, averaging, data):
    before = [json.loads(line) for line in data.read_text().splitlines()]
    candidates = list(dict.fromkeys(text for row in before for text in (*row["pos"], *row["neg"])))
    rows = mined(range_for_sampling="5-20", negative_number=4)
    for row in rows[:5]:
        assert len(set(row["neg"])) == 4
        assert not {row["query"], *row["pos"]} & set(row["neg"])
        # Batches of another make-up may swap neighbours.
        assert set(row["neg"]) <= set(ranking(averaging, row["query"], candidates)[4:21])
    assert [(row["query"], row["pos"]) for row in rows] == [(row["query"], row["pos"]) for row in before]


def test_the_draws_are_a_function_of_the_seed(mined):
    first = mined(range_for_sampling="0-50", negative_number=3)
    assert mined(range_for_sampling="0-50", negative_number=3) == first
    assert mined(range_for_sampling="0-50", negative_number=3, seed=1) != first


def test_negatives_do_not_depend_on_how_many_queries_are_searched_at_a_time(mined):
    first = mined(range_for_sampling="2-40", negative_number=6)
    for size in (1, 7):
        assert mined(range_for_sampling="2-40", negative_number=6, search_batch_size=size) == first


def test_settings_that_are_given_take_the_place_of_the_recorded_ones(mined, averaging):
    given = {"range_for_sampling": "0-6", "negative_number": 6}
    first = mined(**given)
    settings = {"pooling_method": "last_token", "normalize_embeddings": False, "embedder_passage_max_length": 5}
    instruction = {"query_instruction_for_retrieval": "ba", "query_instruction_format_for_retrieval": "{}: {}"}
    changed = mined(**given, **settings, embedder_query_max_length=7, **instruction)
    assert changed != first
    EmbeddingSettings(
        sentence_pooling_method="last_token",
        normalize_embeddings=False,
        query_max_len=7,
        passage_max_len=5,
        query_instruction_for_retrieval="ba",
        query_instruction_format="{}: {}",
    ).write(averaging)
    assert mined(**given) == changed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_search_on_a_gpu_that_is_not_there_is_refused(encoder, data, tmp_path, capfd):
    given = {"embedder_name_or_path": encoder, "input_file": data, "output_file": tmp_path / "mined.jsonl"}
    assert command("mine", **given, use_gpu_for_searching=True) == 2
    assert "--use_gpu_for_searching: there is no GPU" in capfd.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_search_on_a_gpu_finds_the_same_negatives(mined):
    given = {"range_for_sampling": "2-40", "negative_number": 6}
    assert mined(**given, use_gpu_for_searching=True) == mined(**given)


def test_negatives_come_from_the_pool_where_one_is_given(mined, tmp_path):
    pool = tiny.texts(12, seed=77)
    path = tiny.write_rows(tmp_path / "pool.jsonl", [{"text": text} for text in pool])
    rows = mined(candidate_pool=path, range_for_sampling="0-3", negative_number=6)
    assert all(len(set(row["neg"])) == 6 and set(row["neg"]) <= set(pool) for row in rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q"}', "pos: expected a list of texts"),
        ('{"query": "q", "pos": []}', "pos: expected a list of texts"),
        ('{"query": "q", "pos": ["p"], "neg": "n"}', "neg: expected a list of texts"),
        ('{"query": 1, "pos": ["p"]}', "query: expected a text"),
        ("[1]", "query: expected a text"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_cannot_be_mined_for_is_named(encoder, tmp_path, capfd, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    files = {"input_file": tmp_path / "rows.jsonl", "output_file": tmp_path / "mined.jsonl"}
    assert command("mine", embedder_name_or_path=encoder, **files) == 2
    expected = f"resumecheck mine: --input_file {tmp_path / 'rows.jsonl'}:1: {message}"
    assert capfd.readouterr().err.startswith(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"range_for_sampling": "9-3"}, "--range_for_sampling 9-3: expected two ranks, the lower first"),
        ({"negative_number": 0}, "--negative_number 0: expected 1 or more"),
        ({"embedder_query_max_length": 0}, "--embedder_query_max_length 0: expected 1 or more"),
        ({"embedder_passage_max_length": 65}, "--embedder_passage_max_length 65: the model has positions for 64"),
        ({"query_instruction_format_for_retrieval": "{}"}, "--query_instruction_format_for_retrieval '{}': expected"),
        ({"pooling_method": "max"}, "--pooling_method: invalid choice: 'max'"),
        ({"input_file": "absent.jsonl"}, "--input_file absent.jsonl: no such file"),
        ({"candidate_pool": "absent.jsonl"}, "--candidate_pool absent.jsonl: no such file"),
    ],
)
def test_wrong_usage_of_mine_is_one_message(encoder, data, tmp_path, capfd, changes, message):
    given = {"embedder_name_or_path": encoder, "input_file": data, "output_file": tmp_path / "mined.jsonl"}
    assert command("mine", **{**given, **changes}) == 2
    assert capfd.readouterr().err.startswith(f"resumecheck mine: {message}")
    assert not (tmp_path / "mined.jsonl").exists()


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(encoder, tmp_path):
    """A model directory with these settings."""

    def write(**settings):
        directory = tiny.write_encoder(tmp_path / "model")
        EmbeddingSettings(query_max_len=12, passage_max_len=12, **settings).write(directory)
        return directory

    return write


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_exported_model_gives_the_same_vectors_to_the_last_bit(model, tmp_path, pooling, normalize):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    directory = model(
        sentence_pooling_method=pooling,
        normalize_embeddings=normalize,
        query_instruction_for_retrieval="ba be",
        query_instruction_format="{}: {}",
    )
    assert command("export", model_name_or_path=directory, output_dir=tmp_path / "exported") == 0
    exported = sentence_transformers.SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    ours = BiEncoder(load_encoder(str(directory)), pooling=pooling, normalize=normalize)
    settings, tokenizer = read_settings(directory), load_tokenizer(str(directory))
    texts = [*tiny.texts(6, seed=5), " ".join(tiny.WORDS[:40])]
    for prompt, text_of in ((None, settings.passage_text), ("query", settings.query_text)):
        theirs = exported.encode(texts, prompt_name=prompt, convert_to_tensor=True, batch_size=1)
        assert torch.equal(theirs, encode(ours, tokenizer, [*map(text_of, texts)], longest=12, batch_size=1))


def test_an_exported_model_keeps_its_settings(model, tmp_path):
    directory = model(sentence_pooling_method="mean")
    assert command("export", model_name_or_path=directory, output_dir=tmp_path / "exported") == 0
    assert read_settings(tmp_path / "exported") == read_settings(directory)
    modules = json.loads((tmp_path / "exported" / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    assert json.loads((tmp_path / "exported" / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]


def test_wrong_usage_of_export_is_one_message(model, tmp_path, capfd):
    directory = model(query_instruction_for_retrieval="find", query_instruction_format="{} {} now")
    assert command("export", model_name_or_path=directory, output_dir=directory) == 2
    assert "expected an empty directory or a new name" in capfd.readouterr().err
    assert command("export", model_name_or_path=directory, output_dir=tmp_path / "exported") == 2
    assert "sentence-transformers puts prompts before the text" in capfd.readouterr().err
    assert command("export", model_name_or_path=tmp_path, output_dir=tmp_path / "exported") == 2
    assert "no model could be loaded" in capfd.readouterr().err


@pytest.mark.parametrize("dim", [None, 5])
def test_the_heads_of_an_m3_are_exported_as_the_linear_layers_that_their_files_are(encoder, data, tmp_path, dim):
    given = {"unified_finetuning": True, "max_steps": 1, "colbert_dim": dim}
    assert main(["train", *tiny.train_options(encoder, data, tmp_path / "trained", **given)]) == 0
    assert command("export", model_name_or_path=tmp_path / "trained", output_dir=tmp_path / "exported") == 0
    for name, size in (("colbert_linear.pt", dim or 16), ("sparse_linear.pt", 1)):
        layer = torch.nn.Linear(16, size)  # as whoever loads an M3 makes it
        layer.load_state_dict(torch.load(tmp_path / "exported" / name, weights_only=True))
        trained = torch.load(tmp_path / "trained" / name, weights_only=True)
        assert torch.equal(layer.weight, trained["weight"])
        assert torch.equal(layer.bias, trained["bias"])


def test_half_of_an_m3_is_not_exported(encoder, tmp_path, capfd):
    directory = tiny.write_encoder(tmp_path / "model")
    torch.save({"weight": torch.ones(1, 16), "bias": torch.zeros(1)}, directory / "sparse_linear.pt")
    assert command("export", model_name_or_path=directory, output_dir=tmp_path / "exported") == 2
    assert "colbert_linear.pt: missing" in capfd.readouterr().err
    assert not (tmp_path / "exported").exists()
    plain = tiny.write_encoder(tmp_path / "plain")
    assert command("export", model_name_or_path=plain, output_dir=tmp_path / "exported") == 0
    assert not list((tmp_path / "exported").glob("*.pt"))
