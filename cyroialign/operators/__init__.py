"""The operators: a docstring, settings, and one call that gathers, fills and delivers."""
