"""What is being done: a progress bar, only on a terminal, and how to count in words."""

import sys

BAR, WIDTH = 12, 79


class Progress:
    """How much of some equal tasks is done, in one line of stderr; silent if that is not a terminal.

    Parameters
    ----------
    tasks : int
        How many there are.
    """

    def __init__(self, tasks: int = 1) -> None:
        self.tasks = tasks
        self.done = 0

    def show(self, part: float, text: str) -> None:
        """Say what comes now, `part` of the current task being done."""
        share = (self.done + part) / self.tasks
        self._write(f"[{'#' * int(share * BAR):-<{BAR}}] {share:4.0%}  {text}")

    def end_task(self) -> None:
        """Count the current task as done, and leave the line empty for what is printed next."""
        self.done += 1
        self._write("")

    def _write(self, line: str) -> None:
        if len(line) > WIDTH:
            line = f"{line[: WIDTH - 3].rpartition(' ')[0]} ..."
        if sys.stderr.isatty():
            print(f"\r{line:<{WIDTH}}\r", end="", file=sys.stderr, flush=True)


def plural(count: int, noun: str) -> str:
    """Count some things."""
    return f"{count} {noun}{'s' * (count > 1)}"
