"""Imports go one way: no module of the package needs one that needs it, and the commands are leaves."""

import ast
import graphlib
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "cyroialign"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def needs(path):
    """Name the modules of the package that one imports when it is imported itself."""
    found = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            found |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert not statement.level, f"{path}: relative imports are not looked at here"
            names = {f"{statement.module}.{name.name}" for name in statement.names}
            found |= {name if name in MODULES else statement.module for name in names}
    return found & MODULES.keys()


NEEDS = {name: needs(path) for name, path in MODULES.items()}


def test_no_circle():
    assert len(NEEDS) > 30
    assert NEEDS["cyroialign.bench.command"] >= {"cyroialign.bench.report", "cyroialign._commands"}
    graphlib.TopologicalSorter(NEEDS).prepare()  # raises CycleError


def test_commands_are_leaves():
    for name, needed in NEEDS.items():
        parts = {"demo", "bench", "__main__"} & {module.split(".")[1] for module in needed if "." in module}
        assert parts <= {name.split(".")[1] if "." in name else ""}, f"{name} needs {parts}"


LAYERS = (  # a module needs those of its own line and of the lines above
    {"_kernels", "_version"},
    {"arguments"},
    {"operators", "_config"},
    {"pyramid", "diagnosis"},
    {"poolers", ""},
    {"torch", "onnx", "bench", "demo", "_commands"},
    {"__main__"},
)


def layer(module):
    part = module.split(".")[1] if "." in module else ""
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def test_layers():
    for name, needed in NEEDS.items():
        for module in needed:
            assert layer(module) <= layer(name), f"{name} needs {module}"
