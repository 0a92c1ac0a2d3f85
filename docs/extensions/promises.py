"""The page on reliability: the contract as a table of its tests, their sources, and counts of fuzz cases.

The table is what pytest collects while the pages are built, so that it shows the tests that there are.
"""

import ast
import functools
import json
import pathlib
import sys

from docutils import nodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

ROOT = pathlib.Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))
import contract  # noqa: E402

SOURCES = "reliability/tests"  # the page that shows them
FUZZ, SOAK = (ROOT / "docs" / "reliability" / name for name in ("fuzz.json", "soak.json"))

collected = functools.cache(contract.collected)


def anchor(test):
    """Name the place of a test, "folder/file.py::function", or of a file of them."""
    path, _, function = test.partition("::")
    return ".".join(filter(None, [pathlib.PurePath(path).stem, function]))


def link(env, builder, test, text):
    """Return a link to the source of a test."""
    uri = builder.get_relative_uri(env.docname, SOURCES)
    return nodes.reference("", text, internal=True, refuri=f"{uri}#{anchor(test)}")


def table(head, rows, kind):
    """Return a table of rows of nodes; the first cell of each is its title."""
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    whole = nodes.table("", group, classes=[kind])
    for part, of_part in ((nodes.thead(), [[nodes.Text(one) for one in head]]), (nodes.tbody(), rows)):
        for row in of_part:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in row))
        group += part
    return whole


class Promises(SphinxDirective):
    """A row for each promise, a column for each operator; a cell counts cases and leads to the first test."""

    def run(self):
        """Return the table, and why some of its cells are empty."""
        for path in (*TESTS.glob("*.py"), *TESTS.glob("promises/*.py")):
            self.env.note_dependency(str(path))
        found = collected()
        head = ["", *next(iter(found.values()))]
        rows = [[self.title(one), *map(self.cell, row.values())] for one, row in found.items()]
        reasons = "; ".join(contract.NOT_PROMISED.values())
        return [table(head, rows, "promises"), nodes.paragraph("", f"Without a number: {reasons}.")]

    def title(self, promise):
        """Return what a promise says, which leads to its file."""
        path = f"promises/test_{promise}.py"
        said = ast.get_docstring(ast.parse((TESTS / path).read_text(encoding="utf-8")))
        return link(self.env, self.env.app.builder, path, said.split("\n\n")[0].replace("`", ""))

    def cell(self, tests):
        """Return the number of cases, which leads to the first test and names all of them."""
        if not tests:
            return nodes.Text("")
        made = link(self.env, self.env.app.builder, next(iter(tests)), str(sum(tests.values())))
        made["reftitle"] = ", ".join(f"{test.partition('::')[2]}: {count}" for test, count in tests.items())
        return made


class Sources(SphinxDirective):
    """The files of all tests of the table, and those that the content names, with a place for each test."""

    has_content = True

    def run(self):
        """Return a section for each file."""
        tests = {test for row in collected().values() for cell in row.values() for test in cell}
        paths = sorted({test.partition("::")[0] for test in tests}) + list(self.content)
        return [self.section(path) for path in dict.fromkeys(paths)]

    def section(self, path):
        """Return the source of a file, cut where a test begins."""
        self.env.note_dependency(str(TESTS / path))
        text = (TESTS / path).read_text(encoding="utf-8")
        lines, begins = text.splitlines(), {0: None}
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                begins[min([node, *node.decorator_list], key=lambda one: one.lineno).lineno - 1] = node.name
        made = nodes.section("", nodes.title("", f"tests/{path}"), ids=[anchor(path)], names=[path])
        for (begin, name), end in zip(begins.items(), [*begins, len(lines)][1:], strict=True):
            part = "\n".join(lines[begin:end]).strip("\n")
            ids = [anchor(f"{path}::{name}")] if name else []
            made += nodes.literal_block(part, part, language="python", ids=ids)
        return made


class Fuzz(SphinxDirective):
    """What tests/fuzz.py and tests/soak.py have put on record."""

    def run(self):
        """Return the tables and the sentence, or that there is none."""
        for path in (FUZZ, SOAK):
            self.env.note_dependency(str(path))
        found = []
        if FUZZ.exists():
            runs = json.loads(FUZZ.read_text(encoding="utf-8"))["runs"]
            for head, rows in ((OF_OPERATORS, by_operator(runs)), (OF_RUNS, by_run(runs))):
                cells = [[cell(one) for one in row] for row in rows]
                found.append(table(head, cells, "fuzz"))
        if SOAK.exists():
            found.append(nodes.paragraph("", soaked(json.loads(SOAK.read_text(encoding="utf-8")))))
        return found or [nodes.paragraph("", "No run is on record.")]


def cell(value):
    """Return a cell, with commas in whole numbers."""
    return nodes.Text(f"{value:,}" if isinstance(value, int) else value)


OF_OPERATORS = ("", "cases", "with sanitizers", "refused", "by the reference", "by other calls")
OF_RUNS = ("run", "level", "sanitizers", "cases", "first seed", "seconds", "failed")


def by_operator(runs):
    """Sum the runs: a row for each direction of an operator, and one for all."""
    rows = {}
    for run in runs:
        for name, (cases, _, refused, referred, others) in run["counts"].items():
            own = [cases, cases * bool(run["sanitizers"]), refused, referred, others]
            rows[name] = [one + more for one, more in zip(rows.get(name, [0] * 5), own, strict=True)]
    rows["all"] = list(map(sum, zip(*rows.values(), strict=True)))
    return [[name, *row] for name, row in rows.items()]


def by_run(runs):
    """List the runs, a row each."""
    return [
        [
            run["version"],
            run["level"],
            ", ".join(run["sanitizers"]) or "none",
            *(run[name] for name in ("cases", "first", "seconds")),
            len(run["failures"]),
        ]
        for run in runs
    ]


def soaked(entry):
    """Say what a soak came to."""
    soak, most = entry["soak"], max(entry["grown"].values())
    times = ", ".join(f"{soak[name]:,} {name}" for name in ("calls", "forks", "interrupts"))
    return (
        f"The soak on record, of version {entry['version']}: {soak['threads']} threads for "
        f"{soak['seconds']:g} s, {times}. In {entry['calls']:,} calls of one kind, resident memory grew by "
        f"at most {most:,} bytes."
    )


class Tests(SphinxRole):
    """A link to a file of tests: {tests}`test_threads.py`."""

    def run(self):
        """Return the link."""
        if not (TESTS / self.text).exists():
            message = self.inliner.reporter.error(f"there is no tests/{self.text}", line=self.lineno)
            return [], [message]
        return [link(self.env, self.env.app.builder, self.text, f"tests/{self.text}")], []


def setup(app):
    """Name them."""
    app.add_directive("promises", Promises)
    app.add_directive("promise-tests", Sources)
    app.add_directive("fuzz-cases", Fuzz)
    app.add_role("tests", Tests())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
