"""The point-in-time join against a plain loop."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.errors import NotFound
from onepiece.features.as_of_join import NO_ROW, join_file, latest_rows, take_rows

entries = st.lists(
    st.tuples(st.sampled_from(("a", "b", "c")), st.sampled_from(("x", "y")), st.integers(0, 9)),
    max_size=15,
)


def columns(drawn):
    keys = [
        pa.chunked_array([pa.array([entry[place] for entry in drawn], pa.string())])
        for place in (0, 1)
    ]
    return keys, np.array([at for *_, at in drawn], dtype=np.int64)


@settings(deadline=None)
@given(questions=entries, rows=entries, max_age=st.sampled_from((None, 0, 2)))
def test_the_newest_row_of_the_key_not_after_the_question_is_found(questions, rows, max_age):
    expected = []
    for first, second, asked_at in questions:
        best = NO_ROW
        for place, (of_first, of_second, at) in enumerate(rows):
            is_match = (of_first, of_second) == (first, second) and at <= asked_at
            if is_match and (best == NO_ROW or at >= rows[best][2]):
                best = place
        if best != NO_ROW and max_age is not None and asked_at - rows[best][2] > max_age:
            best = NO_ROW
        expected.append(best)

    found = latest_rows(*columns(questions), *columns(rows), max_age_us=max_age)

    assert found.tolist() == expected


def test_a_question_without_a_row_gets_nulls():
    table = pa.table({"value": [[1], [2, 3]]})

    taken = take_rows(table, np.array([1, NO_ROW, 0]))

    assert taken["value"].to_pylist() == [[2, 3], None, [1]]


def test_a_file_is_joined_by_all_keys_and_keeps_the_order_of_the_questions(tmp_path):
    instants = pa.array([1, 5, 5], pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({"user": ["u", "u", "v"], "at": instants, "value": [1, 2, 3]}),
        tmp_path / "view.parquet",
    )
    questions = pa.table(
        {
            "user": ["v", "u", "nobody", "u", "u"],
            "at": pa.array([9, 4, 9, 5, 0], pa.timestamp("us", tz="UTC")),
        }
    )

    joined = join_file(
        tmp_path / "view.parquet",
        questions,
        keys=["user"],
        features=["value"],
        instant="at",
        max_age_us=None,
    )

    assert joined["value"].to_pylist() == [3, 1, None, 2, None]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(NotFound, match="features backfill"):
        join_file(
            tmp_path / "view.parquet",
            pa.table({}),
            keys=[],
            features=[],
            instant="at",
            max_age_us=None,
        )
