"""Every event that a process causes in the files below a directory, one of which may be its death.

An event is what changes a file or a directory: create, write, sync, rename, remove, make a directory. `die_at(n)` kills
the process with SIGKILL before event n, or in the middle of it, with the file torn. Files written by native code
(torch, safetensors, tokenizers) are one event each, torn when half of the file is there.
"""

import builtins
import io
import os
import signal
from pathlib import Path


class FileEvents:
    """Counts the events below `root` from its creation on, in this process; there is no way back.

    Args:
        root: the directory.
        die_at: number of the event that the process does not survive, from 1 on; None to only list them.
        torn: die in the middle of the event.
    """

    def __init__(self, root, die_at=None, torn=False):
        self.root = Path(root)
        self.die_at = die_at
        self.torn = torn
        self.seen = []
        self._patch_python()
        self._patch_native_writers()

    def event(self, kind, path, tear=None):
        """One more event; `tear` leaves it half done."""
        self.seen.append((kind, str(path), tear is not None))
        if len(self.seen) == self.die_at:
            if self.torn:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)

    def below(self, path, dir_fd=None):
        # Nothing in a save but the removal of a tree names files relative to a descriptor.
        return dir_fd is not None or self.root in Path(os.fspath(path)).parents

    def _patch_python(self):
        opened, sync, native_open, plain_open = {}, os.fsync, os.open, io.open

        def os_open(path, flags, *args, **kwargs):
            descriptor = native_open(path, flags, *args, **kwargs)
            opened[descriptor] = path
            return descriptor

        def fsync(descriptor):
            path = Path(opened.get(descriptor, ""))
            if path == self.root or self.below(path):
                # What is not synced need not be on the disk: half of it is.
                self.event("sync", path, (lambda: halve(path)) if path.is_file() else None)
            sync(descriptor)

        os.open, os.fsync = os_open, fsync
        for name in ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "truncate"):
            setattr(os, name, self._counted(name, getattr(os, name)))

        def counted_open(file, mode="r", *args, **kwargs):
            if isinstance(file, int) or not set(mode) & set("wax+") or not self.below(file):
                return plain_open(file, mode, *args, **kwargs)
            self.event("create", file)
            return _Written(plain_open(file, mode, *args, **kwargs), file, self)

        io.open = builtins.open = counted_open

    def _counted(self, name, original):
        def operation(path, *args, dir_fd=None, **kwargs):
            if self.below(path, dir_fd):
                self.event(name, path)
            if dir_fd is not None:
                kwargs["dir_fd"] = dir_fd
            return original(path, *args, **kwargs)

        return operation

    def _patch_native_writers(self):
        import safetensors.torch
        import torch
        from transformers.tokenization_utils_tokenizers import TokenizersBackend

        self._patch_writer(torch, "save")
        self._patch_writer(safetensors.torch, "save_file")
        original = TokenizersBackend.backend_tokenizer.fget
        TokenizersBackend.backend_tokenizer = property(lambda tokenizer: _Tokenizer(original(tokenizer), self))

    def _patch_writer(self, module, name):
        original = getattr(module, name)

        def write(content, path, *args, **kwargs):
            self.native_write(path, lambda: original(content, path, *args, **kwargs))

        setattr(module, name, write)

    def native_write(self, path, write):
        """A file that is written as a whole."""
        if self.below(path):
            self.event("write", path, lambda: (write(), halve(path)))
        write()


class _Tokenizer:
    """A tokenizer of the native library that tells of its writing."""

    def __init__(self, tokenizer, events):
        self.__dict__.update(_tokenizer=tokenizer, _events=events)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __setattr__(self, name, value):
        setattr(self._tokenizer, name, value)

    def save(self, path, *args):
        self._events.native_write(path, lambda: self._tokenizer.save(path, *args))


class _Written:
    """A file open for writing that tells of its writes."""

    def __init__(self, stream, path, events):
        self._stream, self._path, self._events = stream, path, events

    def write(self, content):
        def tear():
            self._stream.write(content[: len(content) // 2])
            self._stream.flush()

        self._events.event("write", self._path, tear)
        return self._stream.write(content)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()


def halve(path):
    with open(path, "rb+") as stream:
        stream.truncate(os.path.getsize(path) // 2)
