import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving import schemas
from onepiece.serving.messages import (
    answer_of_message,
    answer_to_message,
    message_of_request,
    request_of_message,
)

MODELS = (
    schemas.RetrieveRequest,
    schemas.PreRankRequest,
    schemas.RecommendRequest,
    schemas.AnswerItem,
    schemas.Answer,
)
PROTO_TYPES = {
    str: FieldDescriptor.TYPE_STRING,
    bool: FieldDescriptor.TYPE_BOOL,
    float: FieldDescriptor.TYPE_DOUBLE,
    schemas.AnswerItem: FieldDescriptor.TYPE_MESSAGE,
}


def bare(annotation: object) -> object:
    """Strips None and `Annotated` from a type."""
    if typing.get_origin(annotation) is typing.Annotated:
        return bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (kept,) = (one for one in typing.get_args(annotation) if one is not type(None))
        return bare(kept)
    return annotation


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_proto_has_the_fields_of_the_schema(model):
    fields = pb.DESCRIPTOR.message_types_by_name[model.__name__].fields_by_name

    assert list(fields) == list(model.model_fields)
    for name, expected in model.model_fields.items():
        wanted = bare(expected.annotation)
        if typing.get_origin(wanted) is dict:
            entry = fields[name].message_type
            assert entry.GetOptions().map_entry, name
            pair = [PROTO_TYPES[one] for one in typing.get_args(wanted)]
            assert [part.type for part in entry.fields] == pair, name
            continue
        is_repeated = typing.get_origin(wanted) is tuple
        assert fields[name].is_repeated == is_repeated, name
        if is_repeated:
            wanted = bare(typing.get_args(wanted)[0])
        if wanted is int:
            width = "64" if name == "as_of_ms" else "32"
            assert fields[name].type == getattr(FieldDescriptor, f"TYPE_INT{width}"), name
        else:
            assert fields[name].type == PROTO_TYPES[wanted], name


@pytest.mark.parametrize("model", MODELS[:3], ids=lambda model: model.__name__)
def test_what_may_be_left_out_is_optional_in_the_proto(model):
    fields = pb.DESCRIPTOR.message_types_by_name[model.__name__].fields_by_name

    for name, expected in model.model_fields.items():
        if not fields[name].is_repeated:
            assert fields[name].has_presence == (not expected.is_required()), name


def test_the_service_has_the_three_methods():
    service = pb.DESCRIPTOR.services_by_name["OnePiece"]

    signatures = {m.name: (m.input_type.name, m.output_type.name) for m in service.methods}

    assert service.full_name == "onepiece.v1.OnePiece"
    assert signatures == {
        "Retrieve": ("RetrieveRequest", "Answer"),
        "PreRank": ("PreRankRequest", "Answer"),
        "Recommend": ("RecommendRequest", "Answer"),
    }


def test_regenerating_the_proto_changes_nothing(repository: Path, tmp_path: Path):
    source = "components/onepiece/serving/onepiece.proto"

    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", "components"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            *(f"--grpc_python_out={tmp_path}", source),
        ],
        cwd=repository,
        check=True,
    )

    made = sorted((tmp_path / "onepiece/serving").iterdir())
    assert [path.name for path in made] == [
        "onepiece_pb2.py",
        "onepiece_pb2.pyi",
        "onepiece_pb2_grpc.py",
    ]
    for path in made:
        committed = repository / "components/onepiece/serving" / path.name
        assert path.read_text() == committed.read_text(), path.name


identifiers = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc"]), min_size=1)
instants = st.integers(100_000_000_000, 4_102_444_800_000)
common = {
    "request_id": identifiers.map(lambda text: text[:128]),
    "user_id": identifiers.map(lambda text: text[:128]),
    "query_id": st.sampled_from(["milk", "whole milk"]),
    "store_id": identifiers.map(lambda text: text[:128]),
    "as_of_ms": st.none() | instants,
    "count": st.integers(1, 1_000),
}


@given(
    request=st.builds(schemas.RecommendRequest, **common)
    | st.builds(schemas.RetrieveRequest, **common)
    | st.builds(
        schemas.PreRankRequest,
        **common,
        item_ids=st.lists(st.sampled_from(["a", "b"]), min_size=1).map(tuple),
    )
)
def test_a_request_survives_the_way_over_grpc(request):
    payload = message_of_request(request).SerializeToString()

    message = getattr(pb, type(request).__name__).FromString(payload)

    assert request_of_message(type(request), message) == request


probabilities = st.none() | st.floats(0, 1)


@given(
    items=st.lists(
        st.builds(
            schemas.AnswerItem,
            item_id=st.integers(0, 10_000).map(str),
            score=st.floats(allow_nan=False, allow_infinity=False),
            click_probability=probabilities,
            cart_probability=probabilities,
            order_probability=probabilities,
            source=st.sampled_from(["", "onepiece"]),
        ),
        unique_by=lambda item: item.item_id,
        max_size=3,
    ),
    flag=st.booleans(),
    as_of_ms=instants,
    number=st.integers(0, 1_000),
    parts=st.dictionaries(st.sampled_from(["query", "recent"]), st.sampled_from(["a", "b"])),
)
def test_an_answer_over_grpc_equals_the_one_over_rest(items, flag, as_of_ms, number, parts):
    answer = schemas.Answer(
        request_id="r1",
        items=tuple(items),
        as_of_ms=as_of_ms,
        context_parts=parts,
        is_known_user=flag,
        is_known_query=not flag,
        num_unknown_items=number,
        num_duplicate_items=number,
    )

    over_grpc = answer_of_message(
        pb.Answer.FromString(answer_to_message(answer).SerializeToString())
    )
    over_rest = schemas.Answer.model_validate_json(answer.model_dump_json())

    assert over_grpc == over_rest == answer
