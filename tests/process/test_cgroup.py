"""Limits of control groups of both versions, as containers and SLURM set them."""

import types

import pytest
import tensorflow as tf

from ntk_tf.process import cgroup, devices, memory

GIB = 2**30


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that writes the files of groups, and the line that names this process's."""

    def write(line, **files):
        (tmp_path / "self").write_text(line + "\n")
        for name, text in files.items():
            path = tmp_path / "fs" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name.replace("_", ".", 1)).write_text(f"{text}\n")

    monkeypatch.setattr(cgroup, "_ROOT", tmp_path / "fs")
    monkeypatch.setattr(cgroup, "_GROUPS", tmp_path / "self")
    return write


def test_version_2_is_bound_by_the_groups_above(tree):
    """As of a SLURM job, whose limit is on its own group and not on the step's."""
    tree(
        "0::/job_5/step_0",
        job_5__memory_max=4 * GIB,
        job_5__memory_current=3 * GIB,
        job_5__memory_stat=f"anon 5\ninactive_file {GIB}",
        job_5__cpu_max="250000 100000",
        job_5__step_0__memory_max="max",
        job_5__step_0__memory_current=GIB,
        job_5__step_0__cpu_max="max 100000",
    )
    assert cgroup.free_memory() == 2 * GIB
    assert cgroup.cores() == 2.5


def test_version_2_in_a_container(tree, monkeypatch):
    """Which shows its own group as the root."""
    tree("0::/", memory_max=GIB, memory_current=GIB // 4, cpu_max="50000 100000")
    assert cgroup.free_memory() == 3 * GIB // 4
    assert cgroup.cores() == 0.5
    monkeypatch.setattr(devices, "_cores_seen", lambda: 8)
    assert devices.cores() == 1
    assert devices.has_quota()
    assert memory.free_memory() == 0.75


@pytest.fixture
def old(tmp_path, tree):
    def write(limit, quota):
        tree("5:memory:/docker/a1\n3:cpu,cpuacct:/docker/a1\n0::/")
        for name, text in {
            "memory/docker/a1/memory.limit_in_bytes": limit,
            "memory/docker/a1/memory.usage_in_bytes": GIB,
            "memory/docker/a1/memory.stat": f"total_inactive_file {GIB // 2}",
            "cpu,cpuacct/docker/a1/cpu.cfs_quota_us": quota,
            "cpu,cpuacct/docker/a1/cpu.cfs_period_us": 100000,
        }.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


def test_version_1(old):
    old(3 * GIB, 200000)
    assert cgroup.free_memory() == 2.5 * GIB
    assert cgroup.cores() == 2


def test_version_1_without_limits(old):
    old(9223372036854771712, -1)
    assert cgroup.free_memory() is None
    assert cgroup.cores() is None


def test_no_groups(tree, tmp_path):
    tree("0::/")
    (tmp_path / "self").unlink()
    assert cgroup.free_memory() is cgroup.cores() is None


def test_memory_of_gpus_is_the_least_that_the_driver_tells(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 4096\necho 1024\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert devices.gpu_memory() == GIB
    monkeypatch.setattr(devices, "has_driver", lambda: True)
    gpu = types.SimpleNamespace(name="GPU:0")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [gpu])
    used = {"current": GIB // 4, "peak": GIB}
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: used)
    monkeypatch.setattr(memory, "free_memory", lambda: 100.0)
    assert memory.budget(2 * GIB) == 2 + 0.375  # the result is in main memory
    monkeypatch.setattr(memory, "free_memory", lambda: 2.0)
    assert memory.budget(2 * GIB) == 1.0
    tool.write_text("#!/bin/sh\nexit 6\n")
    assert devices.gpu_memory() is None
