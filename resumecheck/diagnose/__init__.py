"""From differences to findings: which lost state is to blame, confirmed by putting it back.

In flow the differences of a resumed run, out flow findings with the root cause first. `findings/` is the table of
findings, `suspects.py` turns differences and censuses into an ordered list of suspects, `confirm.py` tries them.
"""
