"""The command line: ``python -m cyroialign``, installed as ``cyroialign``."""

import argparse
import io
import logging
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyroialign import __version__, show_config
from cyroialign._commands import CommandError

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
  cyroialign demo street.jpg --box -20,60,310,420 --stride 8 --output-size 14
"""
BENCH_HELP = """\
Time an operator, forward and backward, against the other libraries that are
installed and have it (onnxruntime, OpenCV 5, openvino, torchvision, IPEX,
paddle) and against the floor: one copy of the output and one sum of the map.
Results that disagree are reported and not timed. It takes some minutes and
3 GiB of memory; --map takes what --seconds allows, an hour for all its cells.

Needs nothing more, but is meant for: pip install "cyroialign[bench]"
"""
BENCH_EXAMPLES = """\
examples:
  cyroialign bench --quick
  cyroialign bench --workload P2-box --workload P4-box --threads 1,4
  cyroialign bench --operator multiscale --threads 1
  cyroialign bench --workload P2-box --dtype float16 --dtype bfloat16
  cyroialign bench --json bench.json --plot bench.png
  cyroialign bench --operator all --markdown family.md
  cyroialign bench --map --seconds 3600 --json map.json --plot map.png
"""


NEGATIVE_BOX = re.compile(r"-[.0-9in][-+.,0-9aefin]*,[-+.,0-9aefin]*")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"cyroialign: error: {' '.join(message.split())}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; wrong input ends in SystemExit with status 2.

    Trouble with the output causes no traceback: characters that it cannot hold are written as question marks,
    and a reader that goes away, as `head` does, ends the command as SIGPIPE would.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            _run(sys.argv[1:] if argv is None else argv)
        finally:  # of what --help printed, too, which ends in SystemExit
            if sys.stdout:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 128 + 13
    except KeyboardInterrupt:
        print(file=sys.stderr)  # leaves the line of the progress bar
        return 128 + 2
    except OSError as error:  # such as a full disk
        _drop_output()
        print(f"cyroialign: error: {error}", file=sys.stderr)
        return 1
    return 0


def _drop_output() -> None:
    """Discard what is still in the buffer, or Python fails again when it exits."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str]) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of caches and homes that it cannot use
    parser = _build_parser()
    # argparse takes -20,60,310,420 for an option, but no word with a space in it.
    arguments = parser.parse_args([f" {word}" if NEGATIVE_BOX.fullmatch(word) else word for word in argv])
    if arguments.command is None:
        parser.print_help()
    elif arguments.command == "info":
        show_config()
    else:
        command, what = {"demo": (_demo, "the demo"), "bench": (_bench, "--plot")}[arguments.command]
        try:
            command(arguments)
        except CommandError as error:
            parser.error(str(error))
        except ImportError as error:
            parser.error(f'{error}; {what} needs: pip install "cyroialign[{arguments.command}]"')


def _demo(arguments: argparse.Namespace) -> None:
    from cyroialign import demo  # only here: it draws, the rest of the package computes

    demo.run(arguments.image, arguments.box, arguments.output_size, arguments.stride, arguments.output_file)


def _bench(arguments: argparse.Namespace) -> None:
    from cyroialign import bench  # only here: it looks for other libraries

    if arguments.map:
        if arguments.workload:
            raise CommandError("--map has settings of its own: leave out --workload")
        bench.run_map(
            arguments.operator,
            arguments.dtype,
            arguments.threads,
            arguments.quick,
            arguments.seconds,
            arguments.seed,
            arguments.json_file,
            arguments.markdown_file,
            arguments.plot_file,
        )
        return
    bench.run(
        arguments.operator,
        arguments.workload,
        arguments.dtype,
        arguments.threads,
        arguments.quick,
        arguments.json_file,
        arguments.markdown_file,
        arguments.plot_file,
    )


def _build_parser() -> _Parser:
    parser = _Parser(prog="cyroialign", description="RoIAlign on CPUs for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"cyroialign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
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
        "after IMAGE (default: boxes that suit the photograph, or three spread over IMAGE)",
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
    _add_bench(commands)
    return parser


def _add_bench(commands: "argparse._SubParsersAction[_Parser]") -> None:
    bench = commands.add_parser(
        "bench",
        help="time RoIAlign against other libraries and against the memory",
        description=BENCH_HELP,
        epilog=BENCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument(
        "--operator",
        metavar="NAME",
        action="append",
        help="what to time: roi_align, its modes max and onnx_max, boxes_backward, prroi_pool, roi_pool, "
        "ps_roi_align, ps_roi_pool or multiscale; repeat it for more, or all (default: roi_align)",
    )
    bench.add_argument(
        "--workload",
        metavar="NAME",
        action="append",
        help="a workload; repeat it for more (default: all that the operator has)",
    )
    bench.add_argument(
        "--dtype",
        metavar="NAME",
        action="append",
        help="float16, bfloat16, uint8 or int8: time maps of it, too, beside float32; repeat it for more",
    )
    bench.add_argument(
        "--threads",
        metavar="N,N",
        type=_counts,
        help="numbers of threads, each measured on its own (default: 1 and all)",
    )
    bench.add_argument(
        "--quick",
        action="store_true",
        help="fewer rounds and a tenth of the RoIs; with --map only its corners",
    )
    bench.add_argument(
        "--map",
        action="store_true",
        help="instead of workloads, a grid of channels, bins, RoIs, windows and samplings: how many times as "
        "fast as the fastest peer in each cell",
    )
    bench.add_argument(
        "--seconds",
        metavar="N",
        type=float,
        default=600,
        help="when --map ends, with a fair sample of its cells if not with all; the settings that it is at "
        "are measured to their end (default: %(default)s)",
    )
    bench.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="which cells --map measures first (default: %(default)s)",
    )
    bench.add_argument(
        "--json", metavar="FILE", dest="json_file", type=pathlib.Path, help="write every time to FILE"
    )
    bench.add_argument(
        "--markdown", metavar="FILE", dest="markdown_file", type=pathlib.Path, help="write tables to paste"
    )
    bench.add_argument(
        "--plot", metavar="FILE.png", dest="plot_file", type=pathlib.Path, help="draw the ratios"
    )


def _counts(text: str) -> list[int]:
    try:
        return [int(count) for count in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers of threads are like 1,2, got {text!r}") from None


def _box(text: str) -> tuple[float, ...]:
    try:
        corners = tuple(float(corner) for corner in text.split(","))
    except ValueError:
        corners = ()
    if len(corners) != 4:
        raise argparse.ArgumentTypeError(f"a box is four numbers x1,y1,x2,y2, got {text.strip()!r}")
    return corners


if __name__ == "__main__":
    sys.exit(main())
