"""Writes a file wholly or not at all: temporary neighbour, fsync, rename."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_mri.core.errors import FileProblem

_WHY = {
    errno.ENOSPC: ("the disk is full", "Make room, or choose another folder; the old file is untouched."),
    errno.EDQUOT: ("your disk quota is used up", "Make room, or choose another folder; the old file is untouched."),
    errno.EACCES: ("you have no permission there", "Choose a folder that you may write to."),
    errno.EPERM: ("you have no permission there", "Choose a folder that you may write to."),
    errno.EROFS: ("the disk is read-only", "Choose a folder that you may write to."),
    errno.ENOENT: ("its folder does not exist", "Make the folder first, or choose another."),
    errno.ENOTDIR: ("its folder is a file", "Choose another folder."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name."),
    errno.EISDIR: ("a folder of that name exists", "Choose another name."),
}


def cannot_write(path: Path, error: OSError) -> FileProblem:
    """Return the sentence for a failed write to `path`."""
    why, hint = _WHY.get(error.errno or 0, (error.strerror or str(error), "The old file, if any, is untouched."))
    return FileProblem(f"Cannot write {path}: {why}.", hint=hint)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; it becomes `path` when the block ends well.

    The temporary name keeps the ending of `path`, so writers that choose by name do the same. If the
    block fails, or the process is killed, an existing file at `path` stays as it was. A link is
    followed, so that what it points to is replaced and the link stays.

    Parameters
    ----------
    path : Path
        The file to write.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    FileProblem
        If the folder is missing, full or not writable.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise FileProblem(f"Cannot write {path}: a folder of that name exists.", hint="Choose another name.")
    part = target.with_name(f".{secrets.token_hex(4)}.part.{target.name[-80:]}")
    try:
        # Opened here first so that a missing folder or permission is told before any work is done.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if target.exists():
            os.chmod(part, target.stat().st_mode & 0o777)
        yield part
        _flush(part)
        os.replace(part, target)
        _flush(target.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Force a file or folder to the disk; a folder that cannot be opened (Windows) is let be."""
    is_folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if is_folder:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network disks cannot sync a folder or a file opened for reading; a full disk is told.
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(handle)
