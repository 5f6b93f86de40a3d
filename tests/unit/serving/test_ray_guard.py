import os
import subprocess
import sys
from pathlib import Path

from onepiece.serving.ray_guard import end_processes_of, guarded_folder

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); sys.stdin.read()",
]
USE_A_FOLDER = """
import os, signal, subprocess, sys
from onepiece.serving.ray_guard import guarded_folder
with guarded_folder() as folder:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {"FOLDER": str(folder)}, start_new_session=True)
    print(os.getpid(), child.pid, folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def spawn(command, **environment):
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def end(process):
    process.kill()
    process.communicate()


def test_only_processes_that_name_the_folder_are_ended(tmp_path):
    ours = spawn(SLEEP, ANYTHING=str(tmp_path / "haproxy.cfg"))
    another = spawn(SLEEP)

    end_processes_of(tmp_path)

    assert ours.wait(10) == -15
    assert another.poll() is None
    end(ours)
    end(another)


def test_a_process_that_will_not_go_is_killed(tmp_path):
    stubborn = spawn(STUBBORN, ANYTHING=str(tmp_path))
    assert stubborn.stdout.readline() == b"ready\n"

    end_processes_of(tmp_path, grace_s=0.3)

    assert stubborn.wait(10) == -9
    end(stubborn)


def test_a_folder_is_gone_when_it_is_no_longer_needed():
    with guarded_folder() as folder:
        (folder / "file").write_text("x")
        existed = folder.is_dir()

    assert existed
    assert not folder.exists()


def test_what_a_killed_server_leaves_is_cleared_up():
    server = spawn([sys.executable, "-c", USE_A_FOLDER])
    # The guard inherits stdout: the end of it is the end of the guard.
    printed, _ = server.communicate(timeout=60)
    _, child, folder = printed.decode().split()

    assert server.returncode == -9
    assert not Path(folder).exists()
    assert not is_running(int(child))


def is_running(pid: int) -> bool:
    """Whether it runs; an ended process that nobody has waited for (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
