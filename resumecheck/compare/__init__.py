"""Compare two trajectories: in flow two recorded runs and a tolerance, out flow their differences in causal order.

`tolerance.py` says when two numbers count as equal, `differences.py` walks the causal ladder, `tensors.py` measures how
far two stored tensors are apart.
"""
