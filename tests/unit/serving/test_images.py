"""The Dockerfiles name only what is there; no Docker engine is needed to see that."""

import argparse
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

IMAGES = ("stream", "train", "serve")


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def dockerfile(repository: Path, image: str) -> str:
    return (repository / f"components/{image}.Dockerfile").read_text()


def test_an_image_installs_its_own_extra(repository, image, dockerfile):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]

    assert re.findall(r"--extra (\S+)", dockerfile) == [image]
    assert image in project["optional-dependencies"]


def test_the_images_are_built_alike(repository):
    serve, train, stream = (
        (repository / f"components/{image}.Dockerfile")
        .read_text()
        .rpartition("\nFROM ")[0]
        .replace(f"--extra {image} ", "--extra IMAGE ")
        .splitlines()[2:]
        for image in ("serve", "train", "stream")
    )

    assert serve == train
    # The stream image has all but PyTorch.
    assert Counter(stream) - Counter(serve) == Counter()


def test_what_lists_the_installed_packages_is_locked_by_hash(repository, dockerfile):
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    [tool] = project["dependency-groups"]["sbom"]
    name, least, below = re.fullmatch(r"([\w-]+)>=([\d.]+),<(\d+)", tool).groups()
    lock = (repository / "components/sbom.lock").read_text()
    [version] = re.findall(rf"^{name}==(\S+) \\$", lock, re.MULTILINE)

    assert version.startswith(f"{least.split('.')[0]}.")
    assert int(version.split(".")[0]) < int(below)
    assert lock.count("--hash=sha256:") >= lock.count("==")
    assert "--require-hashes sbom.lock" in dockerfile
    assert "--output-file /code/share/sbom.cdx.json" in dockerfile
    assert "COPY --from=build /code /opt/onepiece\n" in dockerfile


def test_an_image_copies_only_what_the_repository_has(repository, dockerfile):
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)

    sources = [source for line in copies for source in line.split()]

    assert "components/onepiece" in sources
    assert [source for source in sources if not (repository / source).exists()] == []


def test_an_image_never_runs_as_root(dockerfile):
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["65532:65532"]


def test_the_tools_have_the_versions_of_the_lock(repository, dockerfile):
    lock = (repository / "requirements.lock").read_text()

    [version] = re.findall(r"uv==(\S+)", dockerfile)

    assert f"\nuv=={version} " in lock
    assert "\nsetuptools==" in lock


def test_the_verb_of_an_image_exists(dockerfile):
    [words] = re.findall(r"^CMD \[(.*)\]$", dockerfile, re.MULTILINE)
    stage, verb, _ = re.findall(r'"([^"]*)"', words)

    commands = __import__(f"onepiece.{stage}.commands", fromlist=["add_commands"])
    verbs = Verbs()
    commands.add_commands(verbs)

    assert verb in verbs.names


class Verbs:
    """Takes the place of argparse's subparsers; notes the verbs that are added."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_parser(self, name: str, **_: object):
        self.names.append(name)
        return argparse.ArgumentParser()


def test_the_readme_lists_every_image(repository):
    text = (repository / "components/README.md").read_text()

    for image in IMAGES:
        assert f"`{image}.Dockerfile`" in text
        assert f"`images.{image}`" in text
