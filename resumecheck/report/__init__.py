"""A verdict as something to read: in flows a `Verdict`, out flow text, a JSON file and JUnit properties.

`terminal.py` is the file to open first: `explanation` is the text of a failing test. `progress.py` shows a check that
is under way, `json_file.py` writes the verdict, `junit.py` names the properties of a test report.
"""
