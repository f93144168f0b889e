"""The memory in which several processes add up their metrics. The kernel frees it when the last of them ends.

``prometheus_client`` maps files of the folder ``PROMETHEUS_MULTIPROC_DIR``, some for each process. Here the folder has
only symbolic links, and they lead to files without a name in memory (memfd_create(2)). All processes have inherited
these from the first one. So nothing stays in memory, whatever ends the processes, and a full disk cannot end one with
SIGBUS.

A worker that replaces another one continues its counters and histograms, and begins with empty gauges.

This module does not import ``prometheus_client``, which reads the variable when it is imported.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_PREFIX = "metrics-"
_BYTES = 65536  # prometheus_client enlarges a file when it is full; it cannot read an empty one
_CONTINUED = ("counter", "histogram")
_EMPTIED = ("gauge_livesum", "gauge_livemax", "gauge_livemostrecent")


class SharedMetrics:
    """The memory for the metrics of some workers, and the folder with its names. Created before the workers are forked.

    Args:
        parent: The folder in which the folder is made. Folders that killed gateways have left there are removed.
        workers: The number of workers. They are numbered from 0.
    """

    def __init__(self, parent: Path, workers: int) -> None:
        _remove_abandoned(parent)
        self.folder, self._lock = _make_folder(parent)
        self._files = [{kind: _memory(kind) for kind in (*_CONTINUED, *_EMPTIED)} for _ in range(workers)]

    def adopt(self, number: int) -> None:
        """Let this process write as the worker *number*; called in the worker, before it creates its metrics."""
        names = {os.readlink(link): link for link in self.folder.iterdir() if link.is_symlink()}
        for kind, file in self._files[number].items():
            target = f"/proc/self/fd/{file}"
            name = self.folder / f"{kind}_{os.getpid()}.db"  # the form that prometheus_client expects
            if kind in _EMPTIED:
                os.ftruncate(file, 0)
                os.ftruncate(file, _BYTES)
            if target in names:
                # In one step: for a reader, the counters of the former worker must be there exactly once.
                names[target].rename(name)
            else:
                name.symlink_to(target)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        for files in self._files:
            for file in files.values():
                os.close(file)


def _memory(kind: str) -> int:
    file = os.memfd_create(kind)
    os.ftruncate(file, _BYTES)
    return file


def _make_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder, and lock it until the last process ends that has the returned descriptor."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)  # another gateway has removed it before it was locked


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # a running gateway has locked it
            pass
        finally:
            os.close(descriptor)
