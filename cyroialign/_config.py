"""What this build has and what it will use."""

from typing import Any, Literal, overload

from cyroialign import _kernels
from cyroialign._version import __version__
from cyroialign.arguments import threads


@overload
def show_config(as_dict: Literal[False] = False) -> None: ...
@overload
def show_config(as_dict: Literal[True]) -> dict[str, Any]: ...
def show_config(as_dict: bool = False) -> dict[str, Any] | None:
    """Show the version, the SIMD level in use and the threads.

    Parameters
    ----------
    as_dict : bool, optional
        Return the values instead of printing them.

    Returns
    -------
    dict or None
        ``version`` (str); ``simd`` (str), the level in use; ``simd_levels`` (list of str), the levels
        that were built and that this CPU supports, slowest first; ``openmp`` (str or None), the OpenMP
        specification of the build, or None if it was built without; ``num_threads`` (int), what
        a call uses by default.

    Notes
    -----
    The environment variable ``CYROIALIGN_SIMD`` selects one of ``simd_levels``. It is read at import.

    Examples
    --------
    >>> import cyroialign
    >>> cyroialign.show_config(as_dict=True)["simd_levels"][0]
    'baseline'
    """
    config = {
        "version": __version__,
        "simd": _kernels.simd,
        "simd_levels": list(_kernels.simd_levels),
        "openmp": threads.OPENMP,
        "num_threads": threads.get_num_threads(),
    }
    if as_dict:
        return config
    for key, value in config.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{key:12} {'none: one thread' if shown is None else shown}")
    return None
