import pytest

from onepiece.errors import InvalidDataset


def test_a_session_is_a_user_and_orders_of_one_instant_are_one_order(source_of, imported):
    events = imported("otto", source_of("otto")).events

    assert [(event.user_id, event.kind) for event in events] == [
        ("2", "click"),
        ("1", "click"),
        ("1", "cart"),
        ("1", "order"),
    ]
    assert [(line.item_id, line.unit_price) for line in events[-1].lines] == [
        ("5", 1.0),
        ("6", 1.0),
    ]


def test_ids_given_as_text_are_read_like_ids_given_as_numbers(source_of, imported):
    source = source_of("otto")
    numbers = imported("otto", source).events
    text = (source / "train.jsonl").read_text().replace('"aid": 5', '"aid": "5"')
    (source / "train.jsonl").write_text(text.replace('"session": 1', '"session": "1"'))

    assert imported("otto", source).events == numbers


def test_rows_are_counted_by_type(source_of, imported):
    counts = imported("otto", source_of("otto")).counts

    assert counts["num_rows"] == 5
    assert counts["num_rows_orders"] == 2
    assert counts["num_sessions"] == 2
    assert counts["num_users_with_one_event"] == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1659304700000", "1659304700", "Unix milliseconds, not seconds"),
        ('"session": 2, ', "", "row 2: session: Field required"),
        ('{"aid": 6, "ts": 1659304700000, "type": "clicks"}', '{"aid": 6}', "row 2: events.0.ts"),
        ('"session": 2, ', '"session": 2 ', "row 2 is not JSON"),
        ('"session": 2', '"session": true', "row 2: session"),
    ],
)
def test_a_bad_line_is_named(source_of, imported, edit, old, new, reason):
    source = source_of("otto")
    edit(source / "train.jsonl", old, new)

    with pytest.raises(InvalidDataset, match=reason):
        imported("otto", source)


def test_another_type_of_event_is_refused(source_of, imported):
    source = source_of("otto")
    text = (source / "train.jsonl").read_text().replace("carts", "wishes")
    (source / "train.jsonl").write_text(text)

    with pytest.raises(InvalidDataset, match="'clicks', 'carts' or 'orders'"):
        imported("otto", source)


def test_orders_of_one_instant_are_one_order_whatever_stands_between_them(source_of, imported):
    source = source_of("otto")
    (source / "train.jsonl").write_text(
        '{"session": 1, "events": ['
        '{"aid": 5, "ts": 1659305000000, "type": "orders"}, '
        '{"aid": 7, "ts": 1659305000000, "type": "clicks"}, '
        '{"aid": 6, "ts": 1659305000000, "type": "orders"}]}\n'
    )

    click, order = imported("otto", source).events

    assert click.item_id == "7"
    assert [line.item_id for line in order.lines] == ["5", "6"]
