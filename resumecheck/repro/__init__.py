"""A failing check as one script: in flows a report of `verify`, out flow `repro.py` and `issue.md`.

`sources.py` finds what the target's runs read, `bundle.py` copies it, `reduction.py` makes the check smaller by real
runs on the copy, `script.py` and `issue.py` write it down. Open `command.py` first: it puts them together.
"""
