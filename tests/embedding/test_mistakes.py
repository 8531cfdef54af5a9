"""A mistake of the user's costs one message, never a traceback and never a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.embedding.dataset import load_train_dataset
from resumecheck.embedding.evaluate import main as evaluate
from resumecheck.embedding.model import check_lengths, longest_input
from resumecheck.embedding.settings import EmbeddingSettings, read_settings
from resumecheck.embedding.train import main
from resumecheck.errors import UsageError
from tests.embedding import tiny

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def refused(encoder, data, tmp_path, capfd):
    """Train with these changes, which must be refused with exit status 2; returns the message."""

    def run(**changes):
        assert main(tiny.train_options(encoder, data, changes.pop("output_dir", tmp_path / "out"), **changes)) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        return text[text.index("resumecheck train: ") :]

    return run


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size 0: expected 1 or more"),
        ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps 0: expected 1 or more"),
        ({"dataloader_num_workers": -1}, "--dataloader_num_workers -1: expected 0 or more"),
        ({"pad_to_multiple_of": 0}, "--pad_to_multiple_of 0: expected 1 or more"),
        ({"num_train_epochs": 0}, "--num_train_epochs 0.0: expected a number above 0"),
        ({"save_strategy": "best"}, "--save_strategy best cannot be used here"),
        ({"train_data": ""}, "--train_data is missing"),
        ({"query_instruction_format": "{}{}{x}"}, "expected a text with two {}"),
        ({"query_instruction_format": "{}{}}"}, "expected a text with two {}"),
        ({"passage_max_len": 65}, "--passage_max_len 65: the model has positions for 64 tokens"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 64}, "26 rows, less than one batch of 64"),
    ],
)
def test_a_value_that_cannot_be_trained_with_is_refused_by_its_option(refused, changes, message):
    assert message in refused(**changes)


def test_an_output_directory_below_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(output_dir=tmp_path / "file" / "out")
    assert f"{tmp_path / 'file'} is a file, expected a directory" in message


def test_a_directory_without_state_cannot_be_resumed_from_but_started_from(refused, encoder):
    message = refused(resume_from_checkpoint=encoder)
    assert "optimizer.pt is missing, without it the optimizer cannot be restored" in message
    assert f"--init_from_checkpoint {encoder}" in message


@pytest.mark.parametrize(
    "mistake", [{"train_data": "absent.jsonl"}, {"learning_rate": "fast"}, {"passage_max_len": 99}]
)
def test_a_mistake_beside_overwriting_costs_no_checkpoint(refused, tmp_path, mistake):
    kept = tmp_path / "out" / "checkpoint-2" / "trainer_state.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    refused(overwrite_output_dir=True, **mistake)
    assert kept.read_text() == "{}"


def test_the_checkpoint_that_a_run_starts_from_may_be_in_the_directory_that_it_overwrites(encoder, data, tmp_path):
    options = {"output_dir": tmp_path / "out", "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    assert main(tiny.train_options(encoder, data, **options)) == 0
    start = {"init_from_checkpoint": tmp_path / "out" / "checkpoint-1", "model_name_or_path": None}
    assert main(tiny.train_options(encoder, data, **options, **start, overwrite_output_dir=True)) == 0


def test_a_table_of_positions_says_how_long_a_text_may_be():
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    shape = {"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    bert = BertModel(BertConfig(**shape, intermediate_size=4, max_position_embeddings=20))
    roberta = RobertaModel(RobertaConfig(**shape, intermediate_size=4, max_position_embeddings=20, pad_token_id=1))
    assert (longest_input(bert), longest_input(roberta)) == (20, 18)
    check_lengths(bert, EmbeddingSettings(query_max_len=20, passage_max_len=20))
    with pytest.raises(UsageError, match="--query_max_len 19: the model has positions for 18 tokens"):
        check_lengths(roberta, EmbeddingSettings(query_max_len=19, passage_max_len=18))


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"query": "\xff", "pos": ["p"], "neg": ["n"]}', "not UTF-8"),
        (b'{"query": "\\ud800", "pos": ["p"], "neg": ["n"]}', "query: half of a surrogate pair"),
        (b'{"query": "q", "pos": ["p"], "neg": ["n", "\\udc00"]}', "neg: half of a surrogate pair"),
        (b'{"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [NaN]}', "pos_scores[0]: expected a finite number"),
        (b'{"query": "q", "pos": ["p"], "neg": ["n"], "neg_scores": [1%s]}' % (b"0" * 400), "neg_scores[0]: expected"),
        (b"[" * 100_000, "not JSON"),
        (b"\x00", "not JSON"),
    ],
    ids=["bytes", "surrogate", "surrogate in a list", "not a number", "too large", "too deep", "zero byte"],
)
def test_a_row_that_no_text_can_be_made_of_is_an_error_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(tiny.rows(1)[0]).encode() + b"\n" + line + b"\n")
    with pytest.raises(UsageError) as error:
        load_train_dataset([str(path)], EmbeddingSettings(), group_size=2, seed=0, cache_path=str(tmp_path / "cache"))
    assert str(error.value).startswith(f"{path}:2: {message}")


def test_every_character_of_a_text_arrives(tmp_path):
    text = "ä\u2028\u0085\x1f😀"
    path = tmp_path / "rows.jsonl"
    written = [json.dumps({"query": text, "pos": [text]}, ensure_ascii=ascii_only) for ascii_only in (True, False)]
    path.write_bytes("\r\n".join(written).encode())
    rows = load_train_dataset(
        [str(path)], EmbeddingSettings(), group_size=1, seed=0, cache_path=str(tmp_path / "cache")
    ).rows
    assert [row["query"] for row in rows] == [text, text]


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluation(encoder, tmp_path, capfd):
    """Evaluate on a collection of two passages with these changes; returns (status, stderr)."""
    texts = [{"_id": "a", "text": "ba be"}, {"_id": "b", "text": "da de"}]
    tiny.write_rows(tmp_path / "corpus.jsonl", texts), tiny.write_rows(tmp_path / "queries.jsonl", texts)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\ta\t1\n")

    def run(**changes):
        files = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels.tsv"}
        given = {"model_name_or_path": encoder, **{name: tmp_path / file for name, file in files.items()}, **changes}
        status = evaluate([part for name, value in given.items() for part in (f"--{name}", str(value))])
        return status, capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "--batch_size 0: expected 1 or more"),
        ({"query_max_len": 0}, "--query_max_len 0: expected 1 or more"),
        ({"passage_max_len": 65}, "--passage_max_len 65: the model has positions for 64 tokens"),
        ({"no_such_option": 1}, "unknown option: --no_such_option 1"),
    ],
)
def test_a_value_that_cannot_be_evaluated_with_is_refused_by_its_option(evaluation, changes, message):
    status, text = evaluation(**changes)
    assert status == 2
    assert text.startswith(f"resumecheck evaluate: {message}")
    assert len(text.splitlines()) == 1


def test_texts_longer_than_the_model_are_cut_where_no_length_is_given(evaluation, tmp_path):
    tiny.write_rows(tmp_path / "corpus.jsonl", [{"_id": "a", "text": "ba " * 200}])
    assert evaluation()[0] == 0


def test_line_separators_inside_a_text_do_not_end_its_line(evaluation, tmp_path):
    row = json.dumps({"_id": "a", "text": "ba\u2028be\u0085"}, ensure_ascii=False)
    (tmp_path / "corpus.jsonl").write_text(row + "\n", encoding="utf-8")
    assert evaluation()[0] == 0


def test_a_collection_that_is_not_utf8_is_one_message(evaluation, tmp_path):
    (tmp_path / "corpus.jsonl").write_bytes(b'{"_id": "a", "text": "\xff"}\n')
    status, text = evaluation()
    assert (status, len(text.splitlines())) == (2, 1)
    assert f"--corpus {tmp_path / 'corpus.jsonl'}: not UTF-8" in text


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_pooling_that_cannot_be_read_is_an_error_that_names_the_file(tmp_path, text):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"1_Pooling/config\.json: not the pooling"):
        read_settings(tmp_path)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_command_ends_with_status_2_and_one_message(command):
    run = subprocess.run(
        [sys.executable, "-m", "resumecheck", command, "--no_such_option", "1"],
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert [line for line in run.stderr.splitlines() if line.startswith(f"resumecheck {command}: ")]
    assert "Traceback" not in run.stderr
