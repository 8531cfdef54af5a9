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
        ('{"query": "ba"}', (), "rows.jsonl:1: pos: expected at least one text, found none"),
        ('{"query": "ba", "pos": [1]}', (), "rows.jsonl:1: pos[0]: expected a list of texts, found a number"),
        ('{"query": "ba", "pos": "da"}', (), "rows.jsonl:1: pos: expected a list of texts, found a text"),
        ("{", (), "rows.jsonl:1: not JSON"),
        ("[1]", (), "rows.jsonl:1: expected an object with `query`, `pos` and `neg`, found a list"),
        ('{"query": "\\ud800", "pos": ["da"]}', (), "rows.jsonl:1: query: half of a surrogate pair"),
        ('{"query": "ba", "pos": ["da"]}', ("--length_list", "5", "3"), "expected rising numbers that begin with 0"),
    ],
)
def test_what_cannot_be_used_is_named(encoder, tmp_path, capsys, line, more, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    assert split(encoder, tmp_path / "rows.jsonl", tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("line", [b'{"query": "ba"}', b"{", b'{"query": "\xff", "pos": ["da"]}', b'{"query": 1}'])
def test_a_row_is_refused_in_the_words_of_training(encoder, tmp_path, capsys, line):
    (tmp_path / "rows.jsonl").write_bytes(b'{"query": "ba", "pos": ["da"], "neg": ["di"]}\n\n' + line)
    assert split(encoder, tmp_path / "rows.jsonl", tmp_path / "out") == 2
    said = capsys.readouterr().err.removeprefix("resumecheck split: ")
    assert f"{tmp_path / 'rows.jsonl'}:3: " in said
    assert main(["train", *tiny.train_options(encoder, tmp_path / "rows.jsonl", tmp_path / "trained")]) == 2
    assert said in capsys.readouterr().err


def test_a_line_is_written_as_it_was_read(encoder, tmp_path):
    line = b'{"pos": ["d\xc3\xa0"],  "query": "ba", "own": 1}\r\n'
    (tmp_path / "rows.jsonl").write_bytes(line + line.rstrip())
    assert split(encoder, tmp_path / "rows.jsonl", tmp_path / "out") == 0
    (path,) = (tmp_path / "out").iterdir()
    assert path.read_bytes() == line + line.rstrip() + b"\n"
