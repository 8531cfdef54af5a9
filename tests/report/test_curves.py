import math
import re
from xml.etree import ElementTree as Tree

import pytest
from recorded import one_ulp_above, recorded_run

from resumecheck.report.curves import curves, differences, height_of, signed_ulp, summary

REFERENCE = recorded_run()


def stems(svg):
    """Height of each stem of the difference, by its horizontal place."""
    paths = [path.get("d") for path in Tree.fromstring(svg).iter("path") if path.get("class", "").startswith("stems")]
    found = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", "".join(paths))
    return {float(x): float(foot) - float(head) for x, foot, head in found}


def resumed(first_step=4, steps=12, **changes):
    return recorded_run(f"resumed from {first_step}", first_step, steps, **changes)


def test_one_ulp_is_visible_beside_a_billion():
    loss = {6: one_ulp_above(REFERENCE.at("loss", 6)), 9: -3e30}
    heights = sorted(abs(height) for height in stems(curves("loss", REFERENCE, [resumed(loss=loss)])).values())
    assert len(heights) == 2
    assert heights[0] >= 5
    assert heights[1] <= 65


def test_one_ulp_alone_fills_half_of_the_scale():
    loss = {6: one_ulp_above(REFERENCE.at("loss", 6))}
    assert list(stems(curves("loss", REFERENCE, [resumed(loss=loss)])).values()) == [pytest.approx(32.5)]


def test_a_number_that_falls_points_down():
    (height,) = stems(curves("loss", REFERENCE, [resumed(loss={6: 0.1})])).values()
    assert height < 0


def test_equal_runs_have_no_stem_and_say_so():
    svg = curves("loss", REFERENCE, [resumed()])
    assert stems(svg) == {}
    assert "resumed from 4: equal at all 8 steps" in svg


def test_a_difference_below_one_float32_ulp_still_shows():
    value = REFERENCE.at("learning_rate", 6)
    nearly = math.nextafter(value, 1)
    assert signed_ulp(value, nearly) == 0.5
    assert len(stems(curves("learning_rate", REFERENCE, [resumed(learning_rate={6: nearly})]))) == 1
    assert "under 1 ulp" in summary("learning_rate", REFERENCE, resumed(learning_rate={6: nearly}))


@pytest.mark.parametrize("value", [math.nan, None])
def test_a_loss_that_is_no_number_reaches_the_edge_and_is_named(value):
    run = resumed(loss={6: value})
    (height,) = stems(curves("loss", REFERENCE, [run])).values()
    assert height == pytest.approx(65)
    assert "step 6" in summary("loss", REFERENCE, run)
    assert "not comparable" in summary("loss", REFERENCE, run)


def test_two_losses_that_are_no_number_are_equal():
    assert signed_ulp(math.nan, math.nan) == 0


def test_the_scale_is_monotonous_and_symmetric():
    sizes = [0, 0.5, 1, 2, 10, 1e3, 1e9]
    assert [height_of(-size) for size in sizes] == [-height_of(size) for size in sizes]
    assert sorted(map(height_of, sizes)) == [height_of(size) for size in sizes]
    assert height_of(1) - height_of(0) >= height_of(10) - height_of(1)


def test_the_sentence_names_the_first_and_the_largest_difference():
    loss = {6: one_ulp_above(REFERENCE.at("loss", 6)), 9: 9.0}
    text = summary("loss", REFERENCE, resumed(loss=loss))
    assert re.match(r"first differs at step 6: expected [\d.]+, got [\d.]+ \(\+1 ulp\); most at step 9: ", text)


def test_only_steps_that_both_runs_made_are_compared():
    assert [each.step for each in differences("loss", REFERENCE, resumed(10, 14))] == [11, 12]


def test_a_quantity_that_was_not_recorded_has_no_picture():
    empty = recorded_run(grad_norm=dict.fromkeys(range(1, 13)))
    assert curves("grad_norm", empty, []) is None


def test_a_difference_at_one_step_of_many_thousand_is_drawn():
    steps = 5000
    reference = recorded_run(steps=steps)
    run = resumed(4, steps, loss={3333: one_ulp_above(reference.at("loss", 3333))})
    svg = curves("loss", reference, [run])
    assert len(stems(svg)) == 1
    assert len(svg) < 60_000
