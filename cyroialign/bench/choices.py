"""What the user chose for the benchmark, checked before any work."""

import importlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from cyroialign import get_num_threads
from cyroialign._commands import CommandError, check_output
from cyroialign.arguments import dtypes
from cyroialign.bench import machine


def choice(name: str, what: str, known: Iterable[str]) -> str:
    """Return the name of something that there is."""
    if name not in known:
        raise CommandError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return name


def narrow(name: str) -> str:
    """Check the type of more rows. Of float64 they could differ from float32, whose boxes are rounded."""
    choice(name, "dtype", dtypes.NARROW)
    if name == "bfloat16":
        try:
            importlib.import_module("ml_dtypes")  # registers the name with NumPy
        except ImportError as error:
            raise CommandError(f'{error}; --dtype bfloat16 needs: pip install "cyroialign[bench]"') from error
    return name


def thread_counts(threads: Sequence[int] | None) -> list[int]:
    """Return the numbers of threads in order: one and all of them unless there are others."""
    cores = machine.cores()
    counts = sorted(set(threads or [1, min(get_num_threads(), cores)]))
    if counts[0] < 1 or counts[-1] > cores:
        raise CommandError(f"--threads must be from 1 to {cores}, the cores that this process may use")
    return counts


def check_files(options: Mapping[str, pathlib.Path | None]) -> None:
    """Refuse what cannot be written, or would be written twice; those that are None are not wanted."""
    files = {option: path for option, path in options.items() if path}
    for option, path in files.items():
        check_output(option, path, ".png" if option == "--plot" else "")
        for other in files:
            if other < option and files[other].resolve() == path.resolve():
                raise CommandError(f"{other} and {option} are the same file, {path}")
