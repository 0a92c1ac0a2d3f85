"""What the commands share: an error that the user can fix, and the files that they write."""

import os
import pathlib


class CommandError(Exception):
    """Something that the user can fix, in one line."""


def check_output(option: str, path: pathlib.Path, suffix: str = "") -> None:
    """Refuse, before any work, a file that could not be written or would not match its extension."""
    if not path.name.lower().endswith(suffix):
        raise CommandError(f"{option} must end in {suffix}, got {path}")
    try:
        if path.is_dir():
            raise CommandError(f"{option} {path} is a folder")
        if not path.parent.is_dir():
            raise CommandError(f"{option} {path}: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise CommandError(f"{option} {path} is not writeable")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def write(path: pathlib.Path, data: bytes) -> None:
    """Write a file that `check_output` has let pass."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
