import pytest

from onepiece.errors import InvalidDataset


def test_rows_in_no_order_become_events_in_order(source_of, imported):
    shop = imported("retailrocket", source_of("retailrocket"))

    assert [(event.user_id, event.kind) for event in shop.events] == [
        ("1", "click"),
        ("1", "cart"),
        ("1", "order"),
        ("2", "click"),
    ]


def test_a_repeated_row_is_one_event(source_of, imported):
    counts = imported("retailrocket", source_of("retailrocket")).counts

    assert counts["num_rows"] == 6
    assert counts["num_rows_view"] == 3
    assert counts["num_clicks"] == 2
    assert counts["num_duplicate_events"] == 1
    assert counts["num_differing_duplicates"] == 0


def test_rows_of_a_transaction_are_one_order_at_the_earliest_time(source_of, imported):
    events = imported("retailrocket", source_of("retailrocket")).events

    (order,) = [event for event in events if event.kind == "order"]
    assert [line.item_id for line in order.lines] == ["10", "30"]
    assert order.at_ms == 1433100120000


def test_an_item_has_its_earliest_category_and_the_root_above_it(source_of, imported):
    catalogue = imported("retailrocket", source_of("retailrocket")).catalogue

    assert catalogue.item_ids == ("10", "20", "30")
    assert catalogue.category_ids == ("8", "9", "all items")
    assert catalogue.department_ids == ("1", "9", "unknown")


def test_the_events_alone_are_enough(source_of, imported):
    shop = imported("retailrocket", source_of("retailrocket") / "events.csv")

    assert shop.counts["num_items_without_features"] == shop.counts["num_items"] == 3


def test_a_tree_with_a_circle_is_refused(source_of, imported, edit):
    source = source_of("retailrocket")
    edit(source / "category_tree.csv", "\n1,\n", "\n1,8\n")

    with pytest.raises(InvalidDataset, match="stands above itself"):
        imported("retailrocket", source)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1433200000000,2,view,20,", "1433200000,2,view,20,", "row 2 .*milliseconds, not seconds"),
        ("1433200000000,2,view,20,", "soon,2,view,20,", "timestamp .Unix ms. is 'soon'"),
        ("1433200000000,2,view,20,", "1433200000000,2,stare,20,", "event is 'stare'"),
        ("transaction,30,5", "transaction,30,", "transaction with its transactionid"),
        ("1433200000000,2,view,20,", "1433200000000,2,view", "line 2 has 3 fields, the header 5"),
        ("1433200000000,2,view,20,", "1433200000000,,view,20,", "no valid click: .*user_id"),
        ("visitorid", "user", "missing: visitorid"),
    ],
)
def test_a_bad_row_is_named(source_of, imported, edit, old, new, reason):
    source = source_of("retailrocket")
    edit(source / "events.csv", old, new)

    with pytest.raises(InvalidDataset, match=reason):
        imported("retailrocket", source)
