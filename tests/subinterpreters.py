"""Subinterpreters, as each Python has them; without NumPy, since it matters who imports that first."""

try:
    import _interpreters  # Python 3.13
except ImportError:
    import _xxsubinterpreters as _interpreters

RUN_FAILED = getattr(_interpreters, "RunFailedError", ())  # until Python 3.12


def create(isolated=False):
    """A new interpreter: as mod_wsgi makes them, or with a GIL of its own where Python has those."""
    if hasattr(_interpreters, "new_config"):
        return _interpreters.create("isolated" if isolated else "legacy")
    return _interpreters.create(isolated=isolated)


def run(interpreter, code):
    """Run code there; the error that ended it, as text, or an empty one."""
    try:
        raised = _interpreters.run_string(interpreter, code)
    except RUN_FAILED as error:
        return str(error)
    return raised.formatted if raised else ""


destroy = _interpreters.destroy
