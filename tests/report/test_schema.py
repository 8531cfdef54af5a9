import dataclasses
import json
import math
from importlib.resources import files

import jsonschema
import pytest
from verdicts import make_verdict, resume_point

from resumecheck.verdict import SCHEMA_VERSION, Divergence, Finding, ResumePoint, Settings, StepPair, Verdict

SCHEMA = json.loads((files("resumecheck") / "schema" / f"verdict-{SCHEMA_VERSION}.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DEFINITIONS = {
    Verdict: SCHEMA,
    ResumePoint: SCHEMA["$defs"]["resume_point"],
    Divergence: SCHEMA["$defs"]["divergence"],
    Finding: SCHEMA["$defs"]["finding"],
    StepPair: SCHEMA["$defs"]["step_pair"],
    Settings: SCHEMA["$defs"]["settings"],
}


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_outcome_is_valid(verdict):
    VALIDATOR.validate(json.loads(json.dumps(verdict.to_json())))


def test_numbers_that_json_cannot_hold_are_valid():
    divergence = Divergence(5, "loss", "weights", "loss", "", math.nan, math.inf, math.inf, None)
    verdict = make_verdict("diverged", resume_point(4, first_divergence=divergence))
    data = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    VALIDATOR.validate(data)
    assert data["resume_points"][0]["first_divergence"]["expected"] == "nan"


@pytest.mark.parametrize("fact", DEFINITIONS, ids=lambda fact: fact.__name__)
def test_the_schema_requires_exactly_the_fields_of_the_verdict(fact):
    fields = {field.name for field in dataclasses.fields(fact)} | ({"schema"} if fact is Verdict else set())
    assert set(DEFINITIONS[fact]["properties"]) == fields
    assert set(DEFINITIONS[fact]["required"]) == fields


@pytest.mark.parametrize(
    "change",
    [{"verdict": "fine"}, {"schema": 2}, {"steps": -1}, {"resume_points": [{"step": 4}]}, {"notes": "text"}],
    ids=str,
)
def test_what_is_no_verdict_is_invalid(equivalent, change):
    assert not VALIDATOR.is_valid({**equivalent.to_json(), **change})
