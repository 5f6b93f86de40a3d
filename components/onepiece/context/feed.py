"""A feed's request: the user's newest events, and item-to-item lists in place of a query's anchors.

Training and serving both call `feed_signals`, so what a model was trained on is what it is served
with: no other code may choose a feed's events or anchors.
"""

# Shape suffixes: L = events of the user.

import numpy as np

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import FIRST_ROW, Vocabulary
from onepiece.events.anchors import Anchors
from onepiece.events.history import interactions_of
from onepiece.events.interactions import Interactions
from onepiece.features.item_to_item import ItemToItem
from onepiece.features.store import Signals


def feed_signals(
    past: Interactions,
    context: ContextRecipe,
    vocabulary: Vocabulary,
    *,
    as_of_ms: int,
    table: ItemToItem | None,
) -> Signals:
    """Chooses what a model reads of a user who asks a feed.

    The newest `max_recent_tokens` events before `as_of_ms` are the recent ones; there is one token
    an item, so more events could only repeat items. The clicked anchors are the items that `table`
    names next to all events before `as_of_ms`, best first; an item that it does not know neither
    names others nor is named. A feed has no category, so there is no memory; no query, so nothing
    is known of one; and no profile.

    Args:
        past: Events in any order; those of one instant are ordered as `Interactions` says.
        context: Budgets.
        vocabulary: The item at index i of its `item_ids` is item i of `table`.
        as_of_ms: Instant of the request; nothing at or after it is read.
        table: What users took next to what; None for a feed without anchors.
    """
    entries = sorted(
        entry
        for entry in zip(past.at_ms, past.actions, past.item_ids, strict=True)
        if entry[0] < as_of_ms
    )
    newest = entries[max(len(entries) - context.max_recent_tokens, 0) :]
    anchors = Anchors()
    if table is not None:
        row_of = vocabulary.item_row_of
        items_L = np.array(
            [row_of[item_id] - FIRST_ROW for _, _, item_id in entries if item_id in row_of],
            dtype=np.int64,
        )
        best = table.best(items_L, count=context.max_anchor_tokens)
        anchors = Anchors(clicked=tuple(vocabulary.item_ids[item] for item in best.tolist()))
    return Signals(recent=interactions_of(newest), anchors=anchors)
