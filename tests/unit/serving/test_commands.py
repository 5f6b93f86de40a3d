import argparse
import json
import socket

import numpy as np
import pytest

from onepiece.errors import InvalidInput, NotFound
from onepiece.index import commands as index_commands
from onepiece.index.build import open_index
from onepiece.index.vectors import item_vectors
from onepiece.serving import commands as serving_commands
from onepiece.serving.paths import ServingPaths, check_paths, warm_up_request
from onepiece.serving.ray_environment import Addresses, check_ports


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for commands in (index_commands, serving_commands):
        commands.add_commands(subparsers)
    return parser


def run(parser, *arguments):
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.run(args)


def test_index_build_writes_an_index_of_the_whole_vocabulary(parser, world, tmp_path, capsys):
    out = tmp_path / "index"

    code = run(parser, "build", "--bundle", world.folder / "bundle", "--out", out, "--json")

    index = open_index(out, bundle_version=world.bundle.version)
    assert code == 0
    assert json.loads(capsys.readouterr().out)["num_items"] == len(index.item_ids) == 60
    assert index.item_ids == world.bundle.vocabulary.item_ids
    assert index.vectors.num_dimensions == item_vectors(world.bundle).shape[1]


def test_a_row_of_the_index_is_the_vector_of_its_item(world):
    vectors = item_vectors(world.bundle)

    hits = world.index.vectors.search(vectors[:5], 60, allowed=[np.arange(60)] * 5)

    for query, rows, scores in zip(vectors, hits.rows_BK, hits.scores_BK, strict=False):
        np.testing.assert_allclose(vectors[rows] @ query, scores, rtol=1e-5)


def test_index_check_prints_the_recall(parser, world, capsys):
    folders = ("--bundle", world.folder / "bundle", "--index", world.folder / "index")

    code = run(parser, "check", *folders, "--count", "5", "--json")

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (printed["count"], printed["recall"]) == (5, 1.0)


def test_index_check_refuses_a_count_of_zero(parser, world):
    folders = ("--bundle", world.folder / "bundle", "--index", world.folder / "index")

    with pytest.raises(InvalidInput, match="--count is 0"):
        run(parser, "check", *folders, "--count", "0")


@pytest.mark.parametrize("verb", ["build", "check", "ray"])
def test_each_verb_explains_itself_with_an_example(parser, verb, capsys):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([verb, "--help"])

    assert caught.value.code == 0
    assert f"example: onepiece {'serving' if verb == 'ray' else 'index'} {verb}" in (
        capsys.readouterr().out
    )


def test_serving_without_its_folders_is_not_found(parser, world, tmp_path):
    with pytest.raises(NotFound, match="--item-tables"):
        check_paths(ServingPaths(world.folder, world.folder, world.folder, tmp_path / "none"))


def test_the_warm_up_asks_for_something_that_a_store_sells(world):
    request = warm_up_request(world.folder / "item-tables")

    [answer] = world.pipeline().recommend([request])

    assert answer.items
    assert answer.retriever == answer.ranker == "onepiece"


def test_a_port_that_is_taken_is_refused_by_name(unused_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(InvalidInput, match=f"--grpc-port {port}"):
            check_ports(Addresses(http_port=unused_port, grpc_port=port))


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (Addresses(http_port=0), "--http-port 0"),
        (Addresses(http_port=70_000), "--http-port 70000"),
        (Addresses(http_port=9_000, grpc_port=9_000), "both ports are 9000"),
        (Addresses(num_replicas=0), "--replicas is 0"),
    ],
)
def test_wrong_addresses_are_refused(addresses, said):
    with pytest.raises(InvalidInput, match=said):
        check_ports(addresses)
