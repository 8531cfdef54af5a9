"""Every option of FlagEmbedding's fine-tuner is understood, or refused by name with what to give instead."""

import pytest

from resumecheck.cli import main as cli
from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.flagembedding import (
    FAMILIES,
    NOT_CARRIED_OVER,
    PAGE,
    REFUSED_BY,
    SCRIPTS,
    page,
    understood,
    understood_by,
)
from resumecheck.embedding.train import build_trainer, main
from tests.embedding import tiny

#: The options that a command cannot do without.
NEEDED = {
    "mine": ("input_file", "output_file", "embedder_name_or_path"),
    "score": ("input_file", "output_file", "reranker_name_or_path"),
}
NAMES = [name for names in FAMILIES.values() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_understood_or_refused_by_name(encoder, data, tmp_path, capsys, name):
    assert (name in understood()) is not (name in NOT_CARRIED_OVER)
    if name in NOT_CARRIED_OVER:
        given = tiny.train_options(encoder, data, tmp_path / "out", **{name: "1"})
        assert main(given) == 2
        assert f"--{name} cannot be used here: {NOT_CARRIED_OVER[name]}" in capsys.readouterr().err


SCRIPT_OPTIONS = [(command, name) for command, (_script, names) in SCRIPTS.items() for name in names]


@pytest.mark.parametrize(("command", "name"), SCRIPT_OPTIONS)
def test_an_option_of_a_script_is_understood_or_refused_by_name(capsys, command, name):
    refused = REFUSED_BY[command]
    assert (name in understood_by(command)) is not (name in refused)
    if name in refused:
        needed = [part for option in NEEDED[command] for part in (f"--{option}", "x")]
        assert cli([command, *needed, f"--{name}", "1"]) == 2
        assert f"--{name} cannot be used here: {refused[name]}" in capsys.readouterr().err


def test_an_option_that_nobody_knows_is_refused_too(encoder, data, tmp_path, capsys):
    assert main(tiny.train_options(encoder, data, tmp_path / "out", nonsense=1)) == 2
    assert "unknown option: --nonsense 1" in capsys.readouterr().err


def test_the_page_is_what_the_tables_say():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_positions_are_not_trained_where_they_are_fixed(encoder, data, tmp_path):
    given = tiny.train_options(encoder, data, tmp_path / "out", fix_position_embedding=True)
    trainer = build_trainer(*parse_train_arguments(given))
    fixed = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    assert "encoder.embeddings.position_embeddings.weight" in fixed
    assert not [name for name in fixed if "position_embeddings" not in name and "pooler" not in name]


def test_an_attention_that_is_not_there_is_an_error_of_one_line(encoder, data, tmp_path, capsys):
    assert main(tiny.train_options(encoder, data, tmp_path / "out", attn_implementation="nonsense")) == 2
    assert "nonsense" in capsys.readouterr().err
