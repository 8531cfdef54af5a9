"""Every event that a process causes in the files below a directory, one of which may be its death.

An event is what changes a file or a directory: create, write, sync, rename, remove, make a directory. `FileEvents`
(`events.py`) counts them, and kills the process with SIGKILL before event n or in the middle of it, with the file torn.
All writes to a file between its opening and its closing are one event, torn when half of what was written is there.
What native code of torch, safetensors and tokenizers writes is one event each; what other native code or another
process has written is seen at the next event. Only the standard library is imported, and by relative names: a command's
own interpreter, which may have no resumecheck, loads this folder by its path.
"""

from .events import END, FileEvent, FileEvents, tear

__all__ = ["END", "FileEvent", "FileEvents", "tear"]
