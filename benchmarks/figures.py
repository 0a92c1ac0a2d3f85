"""Measure every figure of docs/performance.md and write it there, with the pictures beside it.

::

    python benchmarks/figures.py            # needs: pip install -e ".[bench]"; about an hour and a half
    python benchmarks/figures.py --only map --only busy

Nothing else should run on the machine meanwhile. Peers that are installed are compared with: torchvision,
openvino, opencv-python-headless and others.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"


NAMES = ("bench", "family", "map", "curves", "scaling", "busy")
PRINTED = ("scaling", "busy")  # the table is what they print


def measure(folder, quick, names=NAMES):
    """Run the benchmark, the curves and the others; each leaves NAME.md and most a NAME.png."""
    bench = ["-m", "cyroialign", "bench"]
    small = ["--quick"] * quick
    commands = {
        "bench": [*bench, "--markdown", folder / "bench.md", "--plot", folder / "bench.png", *small],
        "family": [*bench, "--operator", "all", "--markdown", folder / "family.md", *small],
        "map": [*bench, "--map", "--markdown", folder / "map.md", "--plot", folder / "map.png", *small],
        "curves": [HERE / "curves.py", folder, *small],
        "scaling": [HERE / "scaling.py", *small],
        "busy": [HERE / "busy.py", *["--seconds", "1"] * quick],
    }
    commands["map"] += ["--seconds", "10" if quick else "3600"]
    for name in names:
        with (folder / f"{name}.txt").open("w") as printed:
            subprocess.run([sys.executable, *commands[name]], stdout=printed, check=True)
        if name in PRINTED:
            (folder / f"{name}.txt").rename(folder / f"{name}.md")
    if "family" in names:
        shorten(folder / "family.md")


def shorten(page):
    """Leave the table of all operators, and what is said of all tables below them."""
    paragraphs = page.read_text().strip().split("\n\n")
    page.write_text("\n\n".join([*paragraphs[:2], paragraphs[-1]]))


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
    parser.add_argument("--only", action="append", choices=NAMES, help="a measurement; repeat it for more")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder), options.quick, options.only or NAMES)
        fill(options.page, pathlib.Path(folder))


if __name__ == "__main__":
    main()
