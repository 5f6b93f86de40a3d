"""Level 3's node leaves nothing: no process of a pod, no control group, no kernel setting."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import pods
from bed.pods import cgroup_folders, end_pods, make_cgroup, save_kernel_settings

pytestmark = pytest.mark.timeout(60)
SETTING = Path("/proc/sys/kernel/keys/root_maxkeys")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    reason = pods.reason_it_cannot_run()
    if reason is not None:
        pytest.skip(f"level 3 cannot run: {reason}")
    before = SETTING.read_text()
    yield tmp_path
    SETTING.write_text(before)


def test_processes_groups_and_settings_of_a_node_end_with_it(folder: Path):
    before = SETTING.read_text()
    save_kernel_settings(folder)
    groups = cgroup_folders(folder)
    process = subprocess.Popen(["sleep", "600"])
    for group in groups:
        make_cgroup(group)
        make_cgroup(group / "pod")
        (group / "pod" / "cgroup.procs").write_text(str(process.pid))
    SETTING.write_text(str(int(before) + 1))

    end_pods(folder)

    assert process.wait(timeout=10) < 0
    assert [group for group in groups if group.exists()] == []
    assert SETTING.read_text() == before


def test_a_bed_without_a_node_has_nothing_to_end(tmp_path: Path):
    end_pods(tmp_path)

    assert list(tmp_path.iterdir()) == []
