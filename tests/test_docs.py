"""The documentation: its examples give what they show, it builds, and its links lead somewhere."""

import contextlib
import doctest
import html.parser
import io
import itertools
import pathlib
import re
import urllib.parse

import pytest

import cyroialign

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BUILDERS = ("sphinx", "furo", "myst_parser", "numpydoc", "sphinx_copybutton", "matplotlib", "skimage")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Tell the line of each block of Python, and what it says."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in PYTHON.finditer(text)]


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES if blocks(p)])
def test_examples(page):
    names, runner, said = {}, doctest.DocTestRunner(verbose=False), io.StringIO()
    for line, code in blocks(page):
        if ">>>" in code:
            example = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line)
            with contextlib.redirect_stdout(said):
                runner.run(example, clear_globs=False)
            names |= example.globs
        else:
            exec(compile("\n" * line + code, page, "exec"), names)
    assert not runner.failures, said.getvalue()


def test_every_page_with_examples_is_run():
    assert {page.name for page in PAGES if blocks(page)} >= {"README.md", "index.md", "what.md", "how.md"}


class Page(html.parser.HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):  # noqa: D102
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif "src" in attributes or (tag == "link" and "href" in attributes):
            self.loaded.append(attributes.get("src") or attributes["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory, run_python):
    for name in BUILDERS:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "-n", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    build = [*options, str(ROOT / "docs"), str(folder / "html")]
    run_python(f"import sys; from sphinx.cmd.build import main; sys.exit(main({build}))", timeout=600)
    return {path: Page(path) for path in (folder / "html").rglob("*.html")}


def test_links(site):
    lost = []
    for path, page in site.items():
        for link in itertools.chain(page.links, page.loaded):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.is_file() or (anchor and target in site and anchor not in site[target].anchors):
                lost.append(f"{path.name}: {link}")
    assert not lost


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = {link for page in site.values() for link in page.loaded}
    styles = [style for path in site for style in path.parent.glob("_static/**/*.css")]
    for style in styles:
        loaded |= {url.strip("\"'") for url in re.findall(r"url\(([^)]*)\)", style.read_text())}
    assert styles
    assert not [link for link in loaded if urllib.parse.urlsplit(link).netloc]


def test_the_readme_leads_to_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert "docs/demo.png" in targets
    assert not [target for target in targets if not (ROOT / target).is_file()]


def test_the_readmes_picture_is_what_the_demo_draws(site):
    image = pytest.importorskip("PIL.Image")
    with image.open(ROOT / "docs" / "demo.png") as kept, image.open(ROOT / "docs/_drawn/demo.png") as drawn:
        assert kept.size == (drawn.width // 2, drawn.height // 2)


def test_captions_hold_on_any_ground():
    """In the dark a stronger colour is a lighter one."""
    captions = re.findall(r"^```{drawn}.*?^```$", "\n".join(p.read_text("utf-8") for p in PAGES), re.M | re.S)
    assert captions
    assert not [caption for caption in captions if re.search(r"\b(dark|light|bright)er\b", caption)]


def test_every_card_of_the_gallery_has_a_picture_and_a_page(site):
    [index] = [path for path in site if path.parts[-2:] == ("html", "index.html")]
    cards = index.read_text(encoding="utf-8").split('<div class="card docutils container">')[1:]
    pages = [re.search(r'<svg .*?</svg>.*?href="([a-z_/]+\.html)', card, re.S)[1] for card in cards]
    recipes = {f"recipes/{path.stem}.html" for path in (ROOT / "docs/recipes").glob("*.md")} - {
        "recipes/index.html"
    }
    assert recipes < set(pages)


def test_the_table_of_functions_has_every_public_name(site):
    [index] = [page for path, page in site.items() if path.parts[-2:] == ("api", "index.html")]
    listed = {link.partition("#")[2] for link in index.links}
    assert {f"cyroialign.{name}" for name in cyroialign.__all__ if name != "__version__"} <= listed


def test_every_public_name_is_described(site):
    anchors = set().union(*(page.anchors for page in site.values()))
    assert {f"cyroialign.{name}" for name in cyroialign.__all__ if name != "__version__"} <= anchors
