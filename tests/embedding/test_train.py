import json

import pytest
import torch

from resumecheck.embedding.evaluate import main as evaluate
from resumecheck.embedding.model import load_encoder
from resumecheck.embedding.settings import read_settings
from resumecheck.embedding.train import main
from tests.embedding import tiny


@pytest.fixture
def options(encoder, data, tmp_path):
    def with_changes(**changes):
        return tiny.train_options(encoder, data, changes.pop("output_dir", tmp_path / "out"), **changes)

    return with_changes


@pytest.fixture
def refused(capfd):
    """Run `main`, which must refuse with one message and no traceback; returns the message."""

    def run(argv):
        assert main(argv) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        message = text[text.index("resumecheck train: ") :]
        assert len(message.strip().splitlines()) <= 3
        return message

    return run


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    """The output directory of a whole run with two checkpoints."""
    directory = tmp_path_factory.mktemp("trained") / "out"
    changes = {"save_strategy": "steps", "save_steps": 4, "sentence_pooling_method": "mean"}
    assert main(tiny.train_options(encoder, data, directory, **changes)) == 0
    return directory


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_checkpoints_and_a_model(trained):
    assert {path.name for path in trained.iterdir() if path.is_dir()} == {"checkpoint-4", "checkpoint-8"}
    assert read_settings(trained).sentence_pooling_method == "mean"
    assert read_settings(trained).query_max_len == 12


def test_no_file_of_a_run_needs_unpickling_of_arbitrary_objects(trained):
    files = sorted((trained / "checkpoint-4").iterdir())
    assert {path.suffix for path in files} == {".json", ".pt", ".pth", ".safetensors"}
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(trained / "checkpoint-4" / name, weights_only=True)


def test_the_final_model_is_that_of_the_last_checkpoint(trained):
    final, last = load_encoder(str(trained)).state_dict(), load_encoder(str(trained / "checkpoint-8")).state_dict()
    assert all(torch.equal(final[name], last[name]) for name in final)


def test_training_lowers_the_loss(trained):
    history = json.loads((trained / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_a_trained_model_is_the_start_of_another_run(trained, options):
    assert main(options(model_name_or_path=trained, max_steps=1)) == 0


def test_a_checkpoint_is_the_start_of_another_run_where_that_is_said(trained, options):
    assert main(options(model_name_or_path=None, init_from_checkpoint=trained / "checkpoint-4", max_steps=1)) == 0


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(trained, options, tmp_path):
    resume = options(resume_from_checkpoint=trained / "checkpoint-8", sentence_pooling_method="mean")
    assert main(resume) == 0
    final, before = load_encoder(str(tmp_path / "out")).state_dict(), load_encoder(str(trained)).state_dict()
    assert all(torch.equal(final[name], before[name]) for name in final)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name_or_path": None}, "--model_name_or_path is missing"),
        ({"train_data": None}, "--train_data is missing"),
        ({"train_data": "absent.jsonl"}, "--train_data absent.jsonl: no such file or directory"),
        ({"train_group_size": 0}, "--train_group_size 0: expected 1 or more"),
        ({"temperature": 0}, "--temperature 0.0: expected a number above 0"),
        ({"query_instruction_format": "{}"}, "--query_instruction_format '{}': expected a text with two {}"),
        ({"sentence_pooling_method": "max"}, "--sentence_pooling_method: invalid choice: 'max'"),
        ({"learning_rate": "fast"}, "--learning_rate: invalid float value: 'fast'"),
        ({"no_such_option": 1}, "unknown option: --no_such_option 1"),
        ({"save_only_model": True}, "--save_only_model cannot be used here"),
        ({"ignore_data_skip": True}, "--ignore_data_skip cannot be used here"),
        ({"auto_find_batch_size": True}, "--auto_find_batch_size cannot be used here"),
        ({"fsdp": "full_shard"}, "--fsdp cannot be used here"),
        ({"eval_strategy": "steps"}, "--eval_strategy cannot be used here"),
        ({"push_to_hub": True}, "--push_to_hub cannot be used here"),
        ({"resume_from_checkpoint": "latest", "overwrite_output_dir": True}, "exclude each other"),
        ({"resume_from_checkpoint": "latest"}, "holds no complete checkpoint"),
        ({"init_from_checkpoint": "absent"}, "--init_from_checkpoint absent: no such directory"),
    ],
)
def test_wrong_usage_is_one_message(refused, options, changes, message):
    assert message in refused(options(**changes))


def test_sharding_that_accelerate_would_leave_out_is_refused(refused, options, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "--fsdp cannot be used here" in refused(options())


def test_a_model_that_is_none_is_one_message(refused, options, tmp_path):
    assert f"--model_name_or_path {tmp_path}: no model could be loaded" in refused(options(model_name_or_path=tmp_path))


def test_a_malformed_row_is_one_message(refused, options, tmp_path):
    path = tiny.write_rows(tmp_path / "rows.jsonl", [{"query": "q", "pos": "p"}])
    assert f"{path}:1: pos: expected a list of texts" in refused(options(train_data=path))


def test_a_checkpoint_as_model_is_an_error_that_shows_both_meanings(refused, options, trained):
    message = refused(options(model_name_or_path=trained / "checkpoint-4"))
    assert "this is a checkpoint of a run, not a model" in message
    assert f"--resume_from_checkpoint {trained / 'checkpoint-4'}" in message
    assert f"--init_from_checkpoint {trained / 'checkpoint-4'}" in message


def test_an_output_directory_in_use_is_an_error_that_shows_both_ways_on(refused, options, trained):
    message = refused(options(output_dir=trained))
    assert "the directory is not empty" in message
    assert f"--resume_from_checkpoint {trained / 'checkpoint-8'}" in message
    assert "--overwrite_output_dir" in message


def test_an_output_directory_that_is_a_file_is_an_error(refused, options, tmp_path):
    (tmp_path / "out").write_text("")
    assert "this is a file, expected a directory" in refused(options())


def test_overwriting_removes_the_checkpoints_of_the_earlier_run(options, tmp_path):
    assert main(options(max_steps=2, save_strategy="steps", save_steps=1)) == 0
    assert main(options(max_steps=1, overwrite_output_dir=True, save_strategy="steps", save_steps=1)) == 0
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["checkpoint-1"]


def test_resuming_with_other_data_is_one_message(refused, options, trained, data, tmp_path):
    other = tiny.write_rows(tmp_path / data.name, tiny.rows(tiny.ROWS, seed=1))
    message = refused(options(train_data=other, resume_from_checkpoint=trained / "checkpoint-4"))
    assert "train.jsonl has changed since, so a resumed run would not be the same run" in message


def test_resuming_with_another_model_is_one_message(refused, options, trained, tmp_path):
    from transformers import BertConfig, BertModel

    other = tiny.write_encoder(tmp_path / "other")
    config = BertConfig.from_pretrained(other)
    config.num_hidden_layers = 1
    BertModel(config).save_pretrained(other)
    message = refused(options(model_name_or_path=other, resume_from_checkpoint=trained / "checkpoint-4"))
    assert "the weights do not fit this model: not known to the model: encoder.layer.1." in message


# --- evaluate --------------------------------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path):
    """Queries that are the text of their own passage: every encoder finds them."""
    texts = tiny.texts(8, seed=1)
    tiny.write_rows(tmp_path / "corpus.jsonl", [{"_id": f"p{n}", "text": text} for n, text in enumerate(texts)])
    tiny.write_rows(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(texts)])
    qrels = "".join(f"q{n}\tp{n}\t1\n" for n in range(6))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels.tsv"}

    def options(model, **changes):
        given = {"model_name_or_path": model, **{name: tmp_path / file for name, file in names.items()}, **changes}
        return [part for name, value in given.items() for part in (f"--{name}", str(value))]

    return options


def test_evaluate_prints_and_writes_its_measures(trained, collection, tmp_path, capfd):
    assert evaluate(collection(trained, json=tmp_path / "figures.json")) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["measures"] == {"nDCG@10": 1.0, "MRR": 1.0, "recall@100": 1.0}
    assert (figures["queries"], figures["passages"]) == (6, 8)
    assert "nDCG@10" in capfd.readouterr().out


def test_measures_fall_where_the_judged_passage_is_not_the_nearest(trained, collection, tmp_path):
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tp1\t1\nq1\tp1\t1\n")
    assert evaluate(collection(trained, json=tmp_path / "figures.json")) == 0
    measures = json.loads((tmp_path / "figures.json").read_text())["measures"]
    assert 0.5 < measures["MRR"] <= 0.75
    assert measures["recall@100"] == 1.0


def test_a_checkpoint_can_be_evaluated(trained, collection):
    assert evaluate(collection(trained / "checkpoint-4")) == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"text": "t"}\n', "corpus.jsonl:1: _id: expected an id, found none"),
        ("corpus.jsonl", '{"_id": 1, "text": "t"}\n{"_id": 1, "text": "u"}\n', "corpus.jsonl:2: _id: 1 is there twice"),
        ("corpus.jsonl", "", "corpus.jsonl: the file has no rows"),
        ("queries.jsonl", '{"_id": 1}\n', "queries.jsonl:1: text: expected a text, found none"),
        ("queries.jsonl", "{\n", "queries.jsonl:1: not JSON"),
        ("qrels.tsv", "header\nq0\tp0\n", "qrels.tsv:2: expected query id, passage id and a whole number"),
        ("qrels.tsv", "header\nx\tp0\t1\n", "judges none of the queries"),
    ],
)
def test_a_malformed_collection_is_one_message(encoder, collection, tmp_path, capfd, file, text, message):
    (tmp_path / file).write_text(text)
    assert evaluate(collection(encoder)) == 2
    error = capfd.readouterr().err
    assert error.startswith("resumecheck evaluate: --")
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_collection_that_is_not_there_is_one_message(encoder, collection, capfd):
    assert evaluate(collection(encoder, qrels="absent.tsv")) == 2
    assert capfd.readouterr().err == "resumecheck evaluate: --qrels absent.tsv: no such file\n"
