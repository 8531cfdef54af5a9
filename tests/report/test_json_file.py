import json
from pathlib import Path

import pytest

from resumecheck.errors import UsageError
from resumecheck.report import json_file
from resumecheck.verdict import Verdict


def test_what_is_written_is_the_verdict(verdict, tmp_path):
    path = tmp_path / "verdict.json"
    json_file.write(verdict, path)
    assert Verdict.from_json(json.loads(path.read_text(encoding="utf-8"))) == verdict


def test_writing_leaves_nothing_beside_the_file(equivalent, tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text("old", encoding="utf-8")
    json_file.check_writable(path)
    json_file.write(equivalent, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdict.json"]


def test_a_check_leaves_an_old_file_alone(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text("old", encoding="utf-8")
    json_file.check_writable(path)
    assert path.read_text(encoding="utf-8") == "old"


def test_a_link_stays_a_link(equivalent, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "verdict.json"
    link.symlink_to(tmp_path / "elsewhere" / "real.json")
    json_file.write(equivalent, link)
    assert link.is_symlink()
    assert json.loads((tmp_path / "elsewhere" / "real.json").read_text(encoding="utf-8"))["verdict"] == "equivalent"


def test_a_device_is_written_to_and_not_replaced(equivalent, capfd):
    json_file.check_writable(Path("/dev/stdout"))
    json_file.write(equivalent, Path("/dev/stdout"))
    assert json.loads(capfd.readouterr().out)["schema"] == 1


@pytest.mark.parametrize("path", ["missing/verdict.json", "file/verdict.json", "directory"])
def test_a_path_that_cannot_be_written_is_named(tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match=f"--json .*{path}: cannot be written"):
        json_file.check_writable(tmp_path / path)
