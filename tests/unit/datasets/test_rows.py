import bz2
import gzip
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onepiece.datasets.rows import find_file, table_rows, whole_number
from onepiece.errors import InvalidDataset

TEXT = "b,a\n2,1\n4,3\n"
PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def values(path, *columns, **options):
    return [row for _, row in table_rows(path, columns, **options)]


@pytest.mark.parametrize("end", ["", *PACKERS])
def test_columns_are_found_by_name_in_plain_and_packed_text(tmp_path, end):
    path = tmp_path / f"table.csv{end}"
    path.write_bytes(PACKERS.get(end, bytes)(TEXT.encode()))

    assert values(path, "a", "b") == [("1", "2"), ("3", "4")]


def test_numbers_lists_and_missing_values_of_parquet_become_text(tmp_path):
    path = tmp_path / "table.parquet"
    rows = [{"a": 1, "b": ["x", "y"], "c": 0.5}, {"a": None, "b": None, "c": 2.0}]
    pq.write_table(pa.Table.from_pylist(rows), path)

    assert values(path, "c", "b", "a", "d", optional=("d",)) == [
        ("0.5", "x|y", "1", ""),
        ("2", "", "", ""),
    ]


@pytest.mark.parametrize("end", PACKERS)
def test_a_file_that_is_cut_short_is_refused(tmp_path, end):
    path = tmp_path / f"table.csv{end}"
    packed = PACKERS[end]((TEXT + "".join(f"{n},{n * n}\n" for n in range(5_000))).encode())
    path.write_bytes(packed[: len(packed) // 2])

    with pytest.raises(InvalidDataset, match="cut short"):
        values(path, "a")


@pytest.mark.parametrize("end", PACKERS)
def test_a_file_that_is_not_packed_as_its_name_says_is_refused(tmp_path, end):
    path = tmp_path / f"table.csv{end}"
    path.write_text(TEXT)

    with pytest.raises(InvalidDataset, match="is not what its name ends in; fetch it again"):
        values(path, "a")


@pytest.mark.parametrize("name", ["table.zip", "table.csv.zst", "table.parquet.gz", "table"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text(TEXT)

    with pytest.raises(InvalidDataset, match=r"ends in .*; give a table in \.parquet"):
        values(tmp_path / name, "a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"b\n1\n", "missing: a; give"),
        (b"a,b\n1,2,3\n", "line 2 has 3 fields, the header 2"),
        (b'a,b\n1,"2\n', "line 2 cannot be read"),
        (b"a,b\n1,\xff\n", "is not UTF-8 text"),
    ],
)
def test_bad_text_is_refused(tmp_path, content, reason):
    path = tmp_path / "table.csv"
    path.write_bytes(content)

    with pytest.raises(InvalidDataset, match=reason):
        values(path, "a")


def test_text_under_the_name_of_parquet_is_refused(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_text(TEXT)

    with pytest.raises(InvalidDataset, match="is not a readable parquet file"):
        values(path, "a")


def test_a_byte_order_mark_and_blank_lines_are_no_matter(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n\n1,2\n\n")

    assert values(path, "a") == [("1",)]


def test_where_a_row_stands_is_its_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TEXT)

    assert [where for where, _ in table_rows(path, ["a"])] == [
        "table.csv, row 2",
        "table.csv, row 3",
    ]


def test_a_missing_file_says_what_is_there(tmp_path):
    (tmp_path / "other.csv").touch()

    with pytest.raises(InvalidDataset, match=r"holds other\.csv; give the folder with table\.csv"):
        find_file(tmp_path, ["table.csv"])


def test_a_whole_number_may_be_written_with_a_point():
    assert whole_number("12.0", "here", "n") == 12
    with pytest.raises(InvalidDataset, match=r"here: n is '12\.5'; give a whole number"):
        whole_number("12.5", "here", "n")
    for text in ("", "nan", "inf"):
        with pytest.raises(InvalidDataset, match="give a whole number"):
            whole_number(text, "here", "n")
