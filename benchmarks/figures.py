"""Measure every figure of docs/performance.md and write it there, with the pictures beside it.

::

    python benchmarks/figures.py            # needs: pip install -e ".[bench]"; about 10 minutes

Nothing else should run on the machine meanwhile.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"


def measure(folder, quick):
    """Run the benchmark, the curves and the scaling; each leaves NAME.md and most a NAME.png."""
    files = ["--markdown", folder / "bench.md", "--plot", folder / "bench.png"]
    commands = {
        "bench": ["-m", "cyroialign", "bench", *files],
        "curves": [HERE / "curves.py", folder],
        "scaling": [HERE / "scaling.py"],
    }
    for name, command in commands.items():
        with (folder / f"{name}.txt").open("w") as printed:
            subprocess.run([sys.executable, *command, *["--quick"] * quick], stdout=printed, check=True)
    (folder / "scaling.txt").rename(folder / "scaling.md")


def fill(page, folder):
    """Put each NAME.md of the folder into the page, between the comments NAME and /NAME; copy pictures."""
    from PIL import Image  # which matplotlib needs too

    text = page.read_text()
    for table in sorted(folder.glob("*.md")):
        start, end = f"<!-- {table.stem} -->\n", f"<!-- /{table.stem} -->"
        before, rest = text.split(start)
        text = before + start + "\n" + table.read_text().strip() + "\n\n" + end + rest.split(end)[1]
    page.write_text(text)
    pictures = page.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for picture in folder.glob("*.png"):
        Image.open(picture).convert("RGB").quantize(64).save(pictures / picture.name, optimize=True)


def main(arguments=None):
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="figures that say nothing, to see that all runs")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder), options.quick)
        fill(options.page, pathlib.Path(folder))


if __name__ == "__main__":
    main()
