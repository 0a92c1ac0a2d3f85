"""Benchmarks over the history of the project, for asv. Compared with others: ``python -m cyroialign bench``.

From this folder, once ``asv machine --yes`` has noted what machine this is::

    asv check --python=same             # that every file can be imported, and every suite has the form of one
    asv run --quick --python=same       # once each, on the package that is installed here
    asv run --python=same --set-commit-hash "$(git rev-parse HEAD)" --bench Forward     # keeps the numbers
    asv run main^!                      # on a commit, built in a separate environment
    asv continuous main HEAD            # has anything become slower?
    asv publish && asv preview          # as pages, whose scripts the browser fetches from the network

The extra `bench` is all that they need. asv imports every file of this folder, so none may import more than
NumPy at its top. A run takes about 12 minutes, with --quick 4.

Some workloads and parameters represent the rest; CYROIALIGN_BENCHMARKS=full in the environment takes all, and
CYROIALIGN_LEVELS=avx2 builds one SIMD level only. A commit without `cyroialign.bench`, which defines the
workloads, cannot be measured.

The scripts curves.py, scaling.py, busy.py and figures.py are no suites: they measure what docs/performance.md
shows. limited_api.py and torchvision_models.py are none either; the latter needs torchvision when it runs.
"""
