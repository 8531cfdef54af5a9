"""The scores of a reranker are those that the model gives each pair, and training learns from them."""

import json

import pytest
import torch

from resumecheck.cli import main
from resumecheck.embedding.dataset import load_train_dataset
from resumecheck.embedding.jsonl import write_objects
from resumecheck.embedding.sampler import SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from tests.embedding import tiny


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return tiny.write_reranker(tmp_path_factory.mktemp("reranker"))


@pytest.fixture
def scored(reranker, data, tmp_path):
    """Score with these changes; returns the rows."""

    def run(**changes):
        assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, reranker, **changes) == 0
        return read(tmp_path / "scored.jsonl")

    return run


def score(files, reranker, **changes):
    given = {"reranker_name_or_path": reranker, **files, **changes}
    return main(["score", *(part for name, value in given.items() for part in (f"--{name}", str(value)))])


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one_by_one(directory, pairs, *, longest=64, longest_query=48):
    """The output of the model for each pair alone, from token ids put together by hand."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    found = []
    for query, passage in pairs:
        first = tokenizer(query, add_special_tokens=False)["input_ids"][:longest_query]
        second = tokenizer(passage, add_special_tokens=False)["input_ids"][: longest - 3 - len(first)]
        ids = torch.tensor([[start, *first, end, *second, end]])
        types = torch.tensor([[0] * (len(first) + 2) + [1] * (len(second) + 1)])
        with torch.inference_mode():
            output = model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids))
        found.append(output.logits.item())
    return found


def pairs_of(rows):
    return [(row["query"], text) for row in rows for field in ("pos", "neg") for text in row[field]]


def scores_of(rows):
    return [score for row in rows for field in ("pos_scores", "neg_scores") for score in row[field]]


def test_each_passage_has_the_score_that_the_model_gives_its_pair(scored, reranker, data):
    rows = scored(reranker_batch_size=1)
    assert scores_of(rows) == one_by_one(reranker, pairs_of(rows))
    assert len({round(value, 3) for value in scores_of(rows)}) > 100
    scores = ("pos_scores", "neg_scores")
    assert [{name: value for name, value in row.items() if name not in scores} for row in rows] == read(data)


def test_a_batch_changes_no_more_than_rounding(scored):
    one, many = (torch.tensor(scores_of(scored(reranker_batch_size=size))) for size in (1, 32))
    torch.testing.assert_close(one, many)  # torch's own bounds for float32
    assert scores_of(scored(reranker_batch_size=32)) == many.tolist()


def test_a_pair_that_is_there_twice_has_one_score(reranker, tmp_path):
    rows = tiny.rows(9)
    again = {"query": rows[0]["query"], "pos": [rows[0]["neg"][2]], "neg": [rows[0]["pos"][1]]}
    path = tiny.write_rows(tmp_path / "rows.jsonl", [*rows, again])
    files = {"input_file": path, "output_file": tmp_path / "scored.jsonl"}
    assert score(files, reranker, reranker_batch_size=4) == 0
    first, *_, last = read(tmp_path / "scored.jsonl")
    assert last["pos_scores"] == [first["neg_scores"][2]]
    assert last["neg_scores"] == [first["pos_scores"][1]]


def test_the_passage_is_cut_to_what_the_query_leaves_and_the_query_to_three_quarters(reranker, tmp_path):
    long, short = " ".join(tiny.WORDS[:40]), "ba be"
    rows = [{"query": long, "pos": [long], "neg": [short]}, {"query": short, "pos": [long], "neg": []}]
    files = {"input_file": tiny.write_rows(tmp_path / "rows.jsonl", rows), "output_file": tmp_path / "scored.jsonl"}
    for lengths, changes in (
        ((64, 48), {}),
        ((24, 18), {"reranker_max_length": 24}),
        ((24, 5), {"reranker_max_length": 24, "reranker_query_max_length": 5}),
    ):
        assert score(files, reranker, reranker_batch_size=1, **changes) == 0
        expected = one_by_one(reranker, pairs_of(rows), longest=lengths[0], longest_query=lengths[1])
        assert scores_of(read(tmp_path / "scored.jsonl")) == expected


def test_instructions_stand_before_the_texts(scored, reranker):
    rows = scored(
        reranker_batch_size=1,
        query_instruction_for_rerank="ba",
        query_instruction_format_for_rerank="{}: {}",
        passage_instruction_for_rerank="du ",
    )
    pairs = [(f"ba: {query}", f"du {passage}") for query, passage in pairs_of(rows)]
    assert scores_of(rows) == one_by_one(reranker, pairs)


def test_scores_are_from_0_to_1_where_that_is_asked_for(scored):
    plain = torch.tensor(scores_of(scored()))
    assert scores_of(scored(normalize=True)) == plain.double().sigmoid().float().tolist()


def test_training_learns_from_the_scores(scored, tmp_path):
    rows = scored()
    dataset = load_train_dataset(
        [str(tmp_path / "scored.jsonl")],
        EmbeddingSettings(),
        group_size=3,
        seed=0,
        distillation=True,
        cache_path=str(tmp_path / "cache"),
    )
    for number, row in enumerate(rows):
        sample = dataset[SampleId(0, number)]
        known = dict(zip(row["pos"] + row["neg"], row["pos_scores"] + row["neg_scores"], strict=True))
        assert sample.teacher == [known[passage] for passage in sample.passages]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_file": "absent.jsonl"}, "--input_file absent.jsonl: no such file"),
        ({"output_file": "absent/scored.jsonl"}, "--output_file absent/scored.jsonl: expected the name of a file"),
        ({"reranker_batch_size": 0}, "--reranker_batch_size 0: expected 1 or more"),
        ({"reranker_max_length": 65}, "--reranker_max_length 65: the model has positions for 64 tokens"),
        ({"reranker_max_length": 12}, "--reranker_max_length 12: a query of 9 tokens and 3 of the tokenizer leave"),
        ({"reranker_query_max_length": 0}, "--reranker_query_max_length 0: expected 1 or more"),
        ({"query_instruction_format_for_rerank": "{}"}, "--query_instruction_format_for_rerank '{}': expected a text"),
    ],
)
def test_wrong_usage_is_one_message_and_leaves_the_output_alone(reranker, data, tmp_path, capfd, changes, message):
    (tmp_path / "scored.jsonl").write_text("before")
    files = {"input_file": data, "output_file": tmp_path / "scored.jsonl"}
    assert score(files, reranker, **changes) == 2
    assert capfd.readouterr().err.startswith(f"resumecheck score: {message}")
    assert (tmp_path / "scored.jsonl").read_text() == "before"


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path):
    def torn():
        yield {"query": "a"}
        raise KeyboardInterrupt

    path = tiny.write_rows(tmp_path / "rows.jsonl", [{"query": "before"}])
    with pytest.raises(KeyboardInterrupt):
        write_objects(path, torn())
    assert read(path) == [{"query": "before"}]
    write_objects(path, [{"query": "after"}])
    assert read(path) == [{"query": "after"}]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q"}', "pos: expected a list of texts"),
        ('{"query": "q", "pos": ["p"], "neg": [1]}', "neg: expected a list of texts"),
        ("{", "not JSON"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(reranker, tmp_path, capfd, line, message):
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "pos": ["p"]}\n' + line + "\n")
    files = {"input_file": tmp_path / "rows.jsonl", "output_file": tmp_path / "scored.jsonl"}
    assert score(files, reranker) == 2
    assert f"rows.jsonl:2: {message}" in capfd.readouterr().err


def test_a_directory_without_a_model_is_named(data, tmp_path, capfd):
    assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, tmp_path) == 2
    assert f"--reranker_name_or_path {tmp_path}: no model could be loaded" in capfd.readouterr().err


def test_a_model_without_a_trained_head_is_no_reranker(encoder, data, tmp_path, capfd):
    assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, encoder) == 2
    assert "no reranker: it has no weights for classifier.bias" in capfd.readouterr().err


def test_a_model_with_two_outputs_is_no_reranker(data, tmp_path, capfd):
    classifier = tiny.write_reranker(tmp_path / "classifier", num_labels=2)
    assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, classifier) == 2
    assert "expected one output, it has 2" in capfd.readouterr().err


def test_a_decoder_that_could_not_find_the_end_of_a_text_is_refused(data, tmp_path, capfd):
    from transformers import LlamaForSequenceClassification

    decoder = tiny.write_decoder(tmp_path / "decoder")
    LlamaForSequenceClassification.from_pretrained(decoder, num_labels=1).save_pretrained(decoder)
    assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, decoder) == 2
    assert "its configuration has no `pad_token_id`" in capfd.readouterr().err


def test_a_score_that_is_no_number_is_an_error(reranker, data, tmp_path, capfd):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(reranker)
    model.classifier.bias.data.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(reranker).save_pretrained(tmp_path / "broken")
    assert score({"input_file": data, "output_file": tmp_path / "scored.jsonl"}, tmp_path / "broken") == 2
    assert "its score is nan, expected a number" in capfd.readouterr().err
    assert not (tmp_path / "scored.jsonl").exists()
