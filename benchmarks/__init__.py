"""Benchmarks over the history of the project, for asv. Compared with others: ``python -m cyroialign bench``.

From this folder, once ``asv machine --yes`` has noted what machine this is::

    asv run --quick --python=same       # once each, on the package that is installed here
    asv run --python=same --bench Forward
    asv run main^!                      # on a commit, built in an environment of its own
    asv continuous main HEAD            # has anything become slower?

Some workloads and parameters represent the rest; CYROIALIGN_BENCHMARKS=full in the environment takes all.
A commit without `cyroialign.bench`, which defines the workloads, cannot be measured.
"""
