"""A run in production: recorded as it goes, and audited afterwards. No uninterrupted run is made.

In flow a Trainer that trains (`recorder.py`, the callback) and then the record that it left (`record.py` reads it), out
flows an `Audit` (`result.py`). Open `audit.py` first.
"""
