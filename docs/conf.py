"""Settings of the documentation, which `make docs` builds."""

import inspect
import pathlib
import subprocess
import sys
from functools import partial

from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util.inspect import stringify_signature

from cyroialign import __version__

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "cyroialign"
author = "the authors of cyroialign"
release = version = __version__
copyright = "BSD-3-Clause"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # for its role autolink
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "drawn",
    "mathml",
    "promises",
]
exclude_patterns = ["_build", "inventories"]

smartquotes = False  # which would make one dash of the two of an option
highlight_language = "none"

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings: types stand in the text, where they say shapes too
default_role = "autolink"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "special-members": "__call__", "exclude-members": "extra_repr"}
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {
    "Diagnosis": "cyroialign.diagnosis.Diagnosis",
    "bool": ":class:`bool`",
    "numpy.random.Generator": "numpy.random.Generator",
    "mapping": "collections.abc.Mapping",
    "sequence": "collections.abc.Sequence",
    "sequences": "collections.abc.Sequence",
}
maximum_signature_line_length = 60
add_module_names = False

# Names of others, listed in inventories/ so that building asks no server
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.txt"),
    "numpy": ("https://numpy.org/doc/stable", "inventories/numpy.txt"),
}

# Adapters: described once they are there, whether or not what they adapt to is installed
autodoc_mock_imports = ["torch", "onnx", "onnxruntime", "ml_dtypes"]
_MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self  # for annotations: Tensor | None
nitpick_ignore_regex = [("py:.*", r"(torch|onnx|onnxruntime)\..*")]

# Look
html_theme = "furo"
html_title = f"cyroialign {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = html_show_sourcelink = False
html_show_copyright = html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b5cad",
        "color-brand-content": "#0b5cad",
        "drawn-ink": "#1f2328",
        "drawn-soft": "#6b7480",
        "drawn-line": "#c3c9d1",
        "drawn-fill": "#f3f5f7",
        "drawn-blue": "#0072b2",
        "drawn-orange": "#c85200",
        "drawn-green": "#00795a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7ab8f0",
        "color-brand-content": "#7ab8f0",
        "drawn-ink": "#e8eaed",
        "drawn-soft": "#9aa4b0",
        "drawn-line": "#4a525c",
        "drawn-fill": "#1e2227",
        "drawn-blue": "#56b4e9",
        "drawn-orange": "#f5a05a",
        "drawn-green": "#3fc79a",
    },
}


def draw_pictures(app):
    """Draw the pictures of the demo and of the examples as a reader would."""
    drawn, examples = HERE / "_drawn", HERE.parent / "examples"
    drawn.mkdir(exist_ok=True)
    for command in (
        ["-m", "cyroialign", "demo", "--box", "150,8,306,198", "--output", drawn / "demo.png"],
        [examples / "pipeline.py", drawn / "example-pipeline.png"],
        [examples / "fit_boxes.py", drawn / "example-fit-boxes.png"],
    ):
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def find_in_package(app, env, node, contnode):
    """Let docstrings of modules such as cyroialign.onnx name what the package has."""
    if node["refdomain"] == "py":
        name, python = f"cyroialign.{node['reftarget']}", env.domains.python_domain
        return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)
    return None


def show_how_it_is_made(app, what, name, obj, options, signature, returns):
    """Take the arguments of a class from its __init__ where its base is a stand-in."""
    if what == "class" and signature == "(*args, **kwargs)":
        made = inspect.signature(partial(obj.__init__, None))
        return stringify_signature(made, show_annotation=False), None
    return None


def setup(app):
    """Connect them."""
    app.connect("autodoc-process-signature", show_how_it_is_made)
    app.connect("builder-inited", draw_pictures)
    app.connect("missing-reference", find_in_package)
