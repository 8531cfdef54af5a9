"""The tolerance `noise`: is a resumed run one more draw from the spread of uninterrupted runs?

Several uninterrupted runs give, for each number of the trajectory (losses, gradient norms, learning rates, evaluations,
and per component the logarithm of the mean distance of a run's last tensors from those of the other runs), a sample of
what repeating alone does to it. A resumed run is accepted where each of its numbers lies inside the prediction interval
of Student's t for one more draw: mean +- t * s * sqrt(1 + 1/n), with the error rate shared out over the numbers
(Bonferroni). Where the numbers are close to normal, an unchanged run is refused at most as often as the stated error
rate. `Spread.reach` says what size of effect could have been missed.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from resumecheck.trajectory import Trajectory

#: How often an unchanged run may be refused, over all its numbers together.
ERROR_RATE = 0.001

#: How many uninterrupted runs are made: with fewer the interval of Student's t is so wide that little is seen.
RUNS = 8

#: The name of the numbers that are logarithms of distances; they vary by at least a tenth of a natural unit.
LOG_DISTANCE = "log distance"
LEAST_LOG_SPREAD = 0.1

#: What a number of float32 origin varies by where it varies at all: four units in the last place.
LEAST_RELATIVE_SPREAD = 4 * 2.0**-23

#: A number of a trajectory: (step, rung, quantity, name).
Place = tuple[int, str, str, str]


@dataclasses.dataclass(frozen=True)
class Interval:
    """What repeating alone does to one number: its mean, and how far one more draw may lie from it."""

    mean: float
    half_width: float

    def holds(self, value: float) -> bool:
        """Whether a value is one more draw."""
        # A spread of zero means that the number does not vary at all; rounding of the mean must not refuse equality.
        return abs(value - self.mean) <= self.half_width + 1e-12 * abs(self.mean)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Intervals by place, from several uninterrupted runs."""

    intervals: dict[Place, Interval]
    runs: int

    def outside(self, numbers: Mapping[Place, float]) -> Iterator[tuple[Place, Interval, float]]:
        """Places at which a run is no draw from the spread, in order of step."""
        for place, value in sorted(numbers.items()):
            interval = self.intervals.get(place)
            if interval is not None and not interval.holds(value):
                yield place, interval, value

    def reach(self, rung: str = "loss") -> float:
        """The largest relative deviation on a rung that could have been missed."""
        widths = [
            interval.half_width / abs(interval.mean)
            for (_, at, _, _), interval in self.intervals.items()
            if at == rung and interval.mean
        ]
        return max(widths, default=0.0)


def measure(samples: Sequence[Mapping[Place, float]], *, error_rate: float = ERROR_RATE) -> Spread:
    """The spread of the numbers that all samples have.

    Args:
        samples: the numbers of each uninterrupted run, at least three of them.
        error_rate: over all numbers together.
    """
    places = set(samples[0]).intersection(*samples[1:])
    count = len(samples)
    reach = student_quantile(1 - error_rate / (2 * max(1, len(places))), count - 1) * math.sqrt(1 + 1 / count)
    intervals: dict[Place, Interval] = {}
    for place in places:
        values = [sample[place] for sample in samples]
        if all(math.isfinite(value) for value in values):
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            if place[3] == LOG_DISTANCE:
                deviation = max(deviation, LEAST_LOG_SPREAD)
            elif deviation > 0:
                deviation = max(deviation, LEAST_RELATIVE_SPREAD * abs(mean))
            intervals[place] = Interval(mean, reach * deviation)
    return Spread(intervals, count)


def numbers_of(run: Trajectory, distances: Mapping[str, float], *, after: int = 0) -> dict[Place, float]:
    """The numbers of a run that are judged, from the step after `after` on.

    Args:
        run: a recorded run.
        distances: component -> mean distance of the run's last tensors from those of other uninterrupted runs.
        after: the resume point.
    """
    numbers: dict[Place, float] = {}
    for step in range(after + 1, run.last_step + 1):
        row = run.rows.get(step)
        if row is None:
            break
        for index, micro in enumerate(row.micro):
            if micro.loss is not None:
                numbers[step, "loss", "loss", f"micro-batch {index}"] = micro.loss
        if row.grad_norm is not None:
            numbers[step, "gradients", "gradient norm", ""] = row.grad_norm
        for index, rate in enumerate(row.lr):
            numbers[step, "learning-rate", "learning rate", f"group {index}"] = rate
        for event in row.events:
            if event["kind"] == "evaluate":
                numbers |= {(step, "events", "evaluation", name): value for name, value in event["metrics"].items()}
    for component, value in distances.items():
        # A distance of zero is as far below every other as a logarithm of floats reaches.
        numbers[run.last_step, "state-after-step", component, LOG_DISTANCE] = math.log(max(value, 5e-324))
    return numbers


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t: the point below which a draw lies with this probability (above one half).

    By bisection of the distribution function, which has a closed form for a whole number of degrees of freedom
    (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < probability:
        high *= 2
        if high > 1e12:
            return high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_below(middle, freedom) < probability else (low, middle)
    return high


def _student_below(value: float, freedom: int) -> float:
    angle = math.atan(value / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        series, term = 0.0, cosine
        for index in range(1, (freedom - 1) // 2 + 1):
            series += term
            term *= cosine * cosine * (2 * index) / (2 * index + 1)
        inside = 2 / math.pi * (angle + sine * series)
    else:
        series, term = 0.0, 1.0
        for index in range(1, freedom // 2 + 1):
            series += term
            term *= cosine * cosine * (2 * index - 1) / (2 * index)
        inside = sine * series
    return 0.5 + inside / 2
