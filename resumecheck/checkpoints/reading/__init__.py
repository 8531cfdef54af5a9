"""Files of a checkpoint, read without trusting them: nothing is unpickled, nothing is read past a limit.

In flows a path, out flows plain data or `Unreadable` with the reason. `files.py` opens and lists, the others know one
format each; `pickles.py`, which follows a pickle's opcodes without carrying them out, is the file to open first.
"""
