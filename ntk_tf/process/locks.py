"""File locks, where the file system has them; they end with the process, however it ends."""

import errno
import os
import pathlib

import filelock

try:
    import fcntl
except ImportError:  # Windows, whose file systems all have locks
    fcntl = None  # type: ignore[assignment]

#: What `flock` says where there are none: Lustre without `-o flock`, NFS without its lock daemon.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def lock(path: pathlib.Path, timeout: float = -1) -> filelock.BaseFileLock | None:
    """A lock, not yet held; None on a file system without locks.

    There filelock would take the file's existence for a lock, which a killed process leaves behind.

    Args:
        path: of the lock's file, which is created.
        timeout: seconds until `filelock.Timeout`; below 0 for none.

    Raises:
        OSError: if the file cannot be opened.
    """
    path.touch()
    return filelock.FileLock(path, timeout=timeout) if _lockable(path) else None


def _lockable(path: pathlib.Path) -> bool:
    if fcntl is None:
        return True
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return True
