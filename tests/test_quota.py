"""The CPU quota of a control group, read from made-up trees of /proc and /sys."""

import pytest

import cyroialign
from cyroialign.arguments.threads import _cpu_quota

UNLIMITED = 1 << 30
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


def v1(group, quota, period=100_000):
    return {f"{V1}{group}/cpu.cfs_quota_us": f"{quota}\n", f"{V1}{group}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, UNLIMITED),
        ("", {}, UNLIMITED),
        ("0::/\n", {}, UNLIMITED),
        ("0::/\n", {f"{V2}/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "max 100000\n"}, UNLIMITED),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "800000 100000\n", f"{V2}/a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "max 100000\n", f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ("0::/a\n", {f"{V2}/b/cpu.max": "100000 100000\n"}, UNLIMITED),
        ("0::/a\n", {f"{V2}/a/cpu.max": "nonsense\n"}, UNLIMITED),
        ("4:cpu,cpuacct:/a\n3:memory:/b\n", v1("/a", 250_000), 3),
        ("4:cpu,cpuacct:/a/b\n", v1("/a", 100_000) | v1("/a/b", 300_000), 1),
        ("4:cpu:/a\n", v1("/a", -1), UNLIMITED),
        ("4:cpu:/a\n", v1("/a", 100_000, period=0), UNLIMITED),
        ("4:cpuset:/a\n", v1("/a", 100_000), UNLIMITED),
        ("4:cpu:/a\n0::/b\n", {**v1("/a", 300_000), f"{V2}/b/cpu.max": "200000 100000\n"}, 2),
    ],
)
def test_quota(groups, files, expected, tmp_path):
    if groups is not None:
        files = {**files, "proc/self/cgroup": groups}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "omp_num_threads", "expected"), [(2, None, 2), (64, None, 8), (2, "8", 8)])
def test_quota_bounds_the_default(quota, omp_num_threads, expected, monkeypatch):
    """`OMP_NUM_THREADS` is the user's word; without it the runtime knows of processors, not of quotas."""
    threads = cyroialign.arguments.threads
    monkeypatch.setattr(threads, "OPENMP", "2015-11")
    monkeypatch.setattr(threads, "_process_setting", None)
    monkeypatch.setattr(threads._runtime, "openmp_max_threads", lambda: 8)
    environ = {"OMP_NUM_THREADS": omp_num_threads} if omp_num_threads else {}
    monkeypatch.setattr(threads, "_BOUND", threads._bound(environ, quota))
    assert cyroialign.get_num_threads() == expected
