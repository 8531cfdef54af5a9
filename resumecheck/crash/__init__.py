"""`resumecheck crash`: a save is killed at every event in its files, and a resume is tried each time.

In flows a target or a command, out flows a `CrashVerdict` (`verdict.py`). `experiment.py` makes the runs of a target
and judges them, `of_command.py` those of a command, `command.py` reads the options. Open `experiment.py` first.
"""
