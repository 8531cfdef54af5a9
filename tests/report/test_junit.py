from resumecheck.report.junit import properties


def test_an_equivalent_check_has_no_divergence(equivalent):
    found = dict(properties(equivalent))
    assert found["resumecheck.verdict"] == "equivalent"
    assert found["resumecheck.resume_points"] == "4,8"
    assert not any("divergence" in name for name in found)


def test_a_divergence_is_named_by_the_first_failed_resume_point(diverged):
    found = dict(properties(diverged))
    assert found["resumecheck.first_divergence.resume_point"] == "4"
    assert found["resumecheck.first_divergence.step"] == "5"
    assert found["resumecheck.first_divergence.component"] == "lr-scheduler"
    assert found["resumecheck.findings"] == "RC404 lr-scheduler confirmed"


def test_a_cause_without_a_resume_point_is_named(nondeterministic):
    assert dict(properties(nondeterministic))["resumecheck.findings"] == "RC602 nondeterminism confirmed"


def test_every_value_is_text(verdict):
    assert all(isinstance(value, str) for _name, value in properties(verdict))
