"""Training data by length: every row is in one file, and in the right one."""

import json

import pytest

from resumecheck.cli import main
from tests.embedding import tiny


def split(encoder, source, output_dir, *more):
    options = ["--input_path", source, "--output_dir", output_dir, "--model_name_or_path", encoder, *more]
    return main(["split", *map(str, options)])


def row(words):
    return {"query": "ba", "pos": [" ".join(tiny.WORDS[:words])], "neg": ["da"]}


def test_each_row_goes_to_the_range_of_its_longest_text(encoder, tmp_path, capsys):
    rows = [row(2), row(8), row(9), row(3), row(30)]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    assert split(encoder, data, tmp_path / "out", "--length_list", "0", "10", "20") == 0
    # a text of n words has n tokens, and one before and after it
    expected = {"0-10": [rows[0], rows[3]], "10-20": [rows[1], rows[2]], "20-inf": [rows[4]]}
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert {name: [json.loads(line) for line in text.splitlines()] for name, text in found.items()} == {
        f"rows_len-{name}.jsonl": part for name, part in expected.items()
    }
    assert "rows_len-10-20.jsonl: 2 rows" in capsys.readouterr().out


def test_what_is_there_is_not_written_over_unless_asked(encoder, tmp_path, capsys):
    data = tiny.write_rows(tmp_path / "rows.jsonl", [row(2)])
    assert split(encoder, data, tmp_path / "out") == 0
    assert split(encoder, data, tmp_path / "out") == 2
    assert "is there already; give --overwrite true" in capsys.readouterr().err
    assert split(encoder, data, tmp_path / "out", "--overwrite", "true") == 0


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        ('{"query": "ba"}', (), "line 1: expected a JSON object with `query`, `pos`, `neg`"),
        ('{"query": "ba", "pos": [1]}', (), "line 1: expected texts"),
        ("{", (), "line 1: expected a JSON object"),
        ('{"query": "ba", "pos": ["da"]}', ("--length_list", "5", "3"), "expected rising numbers that begin with 0"),
    ],
)
def test_what_cannot_be_used_is_named(encoder, tmp_path, capsys, line, more, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    assert split(encoder, tmp_path / "rows.jsonl", tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
