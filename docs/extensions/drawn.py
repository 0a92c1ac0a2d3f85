"""The directive `drawn`: figures of figures.py and its like within the page, in its colours and fonts."""

import figures
import figures_of_crops
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

DRAWN = vars(figures_of_crops) | vars(figures)


class Drawn(SphinxDirective):
    """Draw the named figures side by side, or one below the other where there is no room; with a caption."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        """Return the figure."""
        for module in (figures, figures_of_crops):
            self.env.note_dependency(module.__file__)
        drawings = "".join(DRAWN[name]() for name in self.arguments[0].split())
        figure = nodes.figure("", nodes.raw("", f'<div class="drawn">{drawings}</div>', format="html"))
        if self.content:
            caption, _ = self.state.inline_text(" ".join(self.content), self.lineno)
            figure += nodes.caption("", "", *caption)
        self.set_source_info(figure)
        return [figure]


def setup(app):
    """Name the directive."""
    app.add_directive("drawn", Drawn)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
