"""Benchmarks over the history of the project, for asv. Compared with others: ``python -m cyroialign bench``.

From this folder, once ``asv machine --yes`` has noted what machine this is::

    asv run --quick --python=same       # once each, on the package that is installed here
    asv run --python=same --bench Forward
    asv run main^!                      # on a commit, built in a separate environment
    asv continuous main HEAD            # has anything become slower?
    asv publish && asv preview          # as pages, whose scripts the browser fetches from the network

Some workloads and parameters represent the rest; CYROIALIGN_BENCHMARKS=full in the environment takes all, and
CYROIALIGN_LEVELS=avx2 builds one SIMD level only. A commit without `cyroialign.bench`, which defines the
workloads, cannot be measured.

The scripts curves.py, scaling.py and figures.py are no suites: they measure what docs/performance.md shows.
"""
