"""The directives `drawn` and `card`: figures of figures.py and its like, in the colours of the page."""

import figures
import figures_of_crops
import figures_of_recipes
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

MODULES = (figures, figures_of_crops, figures_of_recipes)
DRAWN = {name: value for module in MODULES for name, value in vars(module).items()}


class Drawn(SphinxDirective):
    """Draw the named figures side by side, or one below the other where there is no room; with a caption."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        """Return the figure."""
        figure = nodes.figure("", self.drawings())
        if self.content:
            caption, _ = self.state.inline_text(" ".join(self.content), self.lineno)
            figure += nodes.caption("", "", *caption)
        self.set_source_info(figure)
        return [figure]

    def drawings(self):
        """Draw."""
        for module in MODULES:
            self.env.note_dependency(module.__file__)
        drawings = "".join(DRAWN[name]() for name in self.arguments[0].split())
        return nodes.raw("", f'<div class="drawn">{drawings}</div>', format="html")


class Card(Drawn):
    """A task of the gallery: a figure, and below it a link to its page and a few words."""

    def run(self):
        """Return the card."""
        card = nodes.container("", self.drawings(), classes=["card"])
        self.state.nested_parse(self.content, self.content_offset, card)
        return [card]


def setup(app):
    """Name the directives."""
    app.add_directive("drawn", Drawn)
    app.add_directive("card", Card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
