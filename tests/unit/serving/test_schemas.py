import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidRequest, OnePieceError, PayloadTooLarge
from onepiece.serving.schemas import (
    MAX_BODY_BYTES,
    MAX_CANDIDATES,
    Answer,
    PreRankRequest,
    RecommendRequest,
    RetrieveRequest,
    parse_json,
    parse_mapping,
)

GOOD = {
    "request_id": "r1",
    "user_id": "u1",
    "query_id": "milk",
    "store_id": "s1",
    "as_of_ms": 1_500_000_000_000,
}


def as_json(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_a_good_request_is_read_with_the_documented_defaults():
    request = parse_json(RecommendRequest, as_json())

    assert (request.count, request.retriever, request.ranker) == (20, "onepiece", "onepiece")


def test_query_words_become_a_query_id():
    request = parse_json(RetrieveRequest, as_json(query_id="  Whole   MILK "))

    assert request.query_id == "whole milk"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": "x" * 10_000}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"query_id": "   "}, "query_id"),
        ({"as_of_ms": 1_500_000_000}, "as_of_ms"),
        ({"as_of_ms": 1_500_000_000_000_000}, "as_of_ms"),
        ({"as_of_ms": 1.5e12}, "as_of_ms"),
        ({"as_of_ms": "1500000000000"}, "as_of_ms"),
        ({"as_of_ms": -1}, "as_of_ms"),
        ({"count": 0}, "count"),
        ({"count": 1_001}, "count"),
        ({"count": float("nan")}, "count"),
        ({"count": float("inf")}, "count"),
        ({"count": True}, "count"),
        ({"surprise": 1}, "surprise"),
        ({"retriever": ""}, "retriever"),
    ],
)
def test_a_wrong_field_is_refused_and_named(changes, field):
    with pytest.raises(InvalidRequest, match=field) as caught:
        parse_json(RecommendRequest, as_json(**changes))

    assert len(str(caught.value)) < 600


def test_seconds_are_explained():
    with pytest.raises(InvalidRequest, match="milliseconds, not seconds"):
        parse_json(RecommendRequest, as_json(as_of_ms=1_500_000_000))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"\\ud800": 1}', b"[" * 100_000]
)
def test_malformed_json_is_refused(body):
    with pytest.raises(InvalidRequest):
        parse_json(RecommendRequest, body)


def test_no_candidates_are_refused():
    with pytest.raises(InvalidRequest, match="item_ids"):
        parse_json(PreRankRequest, as_json(item_ids=[]))


def test_ten_thousand_candidates_are_too_many_and_the_limit_is_named():
    with pytest.raises(PayloadTooLarge, match=f"10000 candidates, at most {MAX_CANDIDATES}"):
        parse_json(PreRankRequest, as_json(item_ids=[str(n) for n in range(10_000)]))


def test_the_most_candidates_are_allowed():
    request = parse_json(PreRankRequest, as_json(item_ids=["x"] * MAX_CANDIDATES))

    assert len(request.item_ids) == MAX_CANDIDATES


def test_a_body_over_the_limit_is_too_large():
    with pytest.raises(PayloadTooLarge, match=str(MAX_BODY_BYTES)):
        parse_json(RecommendRequest, b" " * (MAX_BODY_BYTES + 1))


def test_many_faults_are_summed_up_in_one_line():
    with pytest.raises(InvalidRequest, match="and 15 more") as caught:
        parse_json(PreRankRequest, as_json(item_ids=["a", *["\n"] * 20]))

    assert "\n" not in str(caught.value)


def test_an_answer_never_holds_an_item_twice():
    item = {"item_id": "a", "score": 1.0}

    with pytest.raises(ValueError, match="answered twice"):
        Answer(
            request_id="r1",
            items=[item, item],
            as_of_ms=GOOD["as_of_ms"],
            is_known_user=True,
            is_known_query=True,
        )


strings = st.sampled_from(["", "a", "\n", "\ud800", "\u00e9", "x" * 129])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | strings,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(strings, inner, max_size=2),
    max_leaves=3,
)


@given(changes=st.dictionaries(st.sampled_from([*GOOD, "count", "item_ids", "x"]), values))
def test_whatever_comes_is_read_or_refused_by_name(changes):
    for model in (RetrieveRequest, PreRankRequest, RecommendRequest):
        read_or_refused = read(model, GOOD | changes)

        if isinstance(read_or_refused, str):
            assert read_or_refused.isascii()
        else:
            body = read_or_refused.model_dump_json().encode()
            assert parse_json(model, body) == read_or_refused


def read(model, fields):
    """Reads a request, or returns the words in which it is refused."""
    try:
        return parse_mapping(model, fields)
    except OnePieceError as error:
        return str(error)
