"""The command line: ``python -m cyroialign``, installed as ``cyroialign``."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyroialign import __version__, show_config

DEMO_HELP = """\
Crop boxes out of a photograph with RoIAlign, time that, and draw a picture:
the photograph with its boxes, bins and sampling points, and each crop next to
what RoIPool makes of the same box.

The photograph is first averaged to a feature map, as a detector would hand it
to RoIAlign. Without IMAGE it is one that comes with scikit-image.
Needs: pip install "cyroialign[demo]"
"""
DEMO_EXAMPLES = """\
examples:
  cyroialign demo
  cyroialign demo street.jpg --box 40,60,310,420 500,80,640,390
  cyroialign demo street.jpg --box=-20,60,310,420 --stride 8 --output-size 14
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"cyroialign: error: {' '.join(message.split())}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; wrong input ends in SystemExit with status 2."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "info":
        show_config()
    else:
        _demo(parser, arguments)
    return 0


def _demo(parser: _Parser, arguments: argparse.Namespace) -> None:
    from cyroialign import demo  # only here: it draws, the rest of the package computes

    try:
        demo.run(
            arguments.image, arguments.box, arguments.output_size, arguments.stride, arguments.output_file
        )
    except demo.DemoError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f'{error}; the demo needs: pip install "cyroialign[demo]"')


def _build_parser() -> _Parser:
    parser = _Parser(prog="cyroialign", description="RoIAlign on CPUs for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"cyroialign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    about = "show the version, the SIMD level in use and the threads"
    commands.add_parser("info", help=about, description=f"{about[0].upper()}{about[1:]}.")
    demo = commands.add_parser(
        "demo",
        help="crop boxes out of a photograph and draw what happens",
        description=DEMO_HELP,
        epilog=DEMO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        type=pathlib.Path,
        help="an image file, in any format that Pillow reads",
    )
    demo.add_argument(
        "--box",
        metavar="X1,Y1,X2,Y2",
        nargs="+",
        action="extend",
        type=_box,
        help="a box in pixels of the image, from its top left corner; repeat it, or give several in a row "
        "after IMAGE. If X1 is negative write --box=X1,... (default: boxes that suit the photograph, or "
        "three spread over IMAGE)",
    )
    demo.add_argument(
        "--output-size",
        metavar="BINS",
        type=int,
        default=7,
        help="bins on each axis of a crop (default: %(default)s)",
    )
    demo.add_argument(
        "--stride",
        metavar="PIXELS",
        type=int,
        help="image pixels for one feature pixel on each axis; spatial_scale is 1 / PIXELS (default: what "
        "makes the shorter side of the map about 32 pixels, 16 for the photograph)",
    )
    demo.add_argument(
        "--output",
        metavar="FILE.png",
        dest="output_file",
        type=pathlib.Path,
        default=pathlib.Path("cyroialign-demo.png"),
        help="where to write the picture; an existing file is replaced (default: %(default)s)",
    )
    return parser


def _box(text: str) -> tuple[float, ...]:
    try:
        corners = tuple(float(corner) for corner in text.split(","))
    except ValueError:
        corners = ()
    if len(corners) != 4:
        raise argparse.ArgumentTypeError(f"a box is four numbers x1,y1,x2,y2, got {text!r}")
    return corners


if __name__ == "__main__":
    sys.exit(main())
