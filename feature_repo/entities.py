"""The entities of the feature repository: what a feature can be about."""

from feast import Entity, ValueType

from onepiece.features.schema import ENTITY_KEYS

USER = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.STRING)
ITEM = Entity(name="item_id", join_keys=["item_id"], value_type=ValueType.STRING)
QUERY = Entity(name="query_id", join_keys=["query_id"], value_type=ValueType.STRING)
CATEGORY = Entity(name="category_id", join_keys=["category_id"], value_type=ValueType.STRING)

BY_JOIN_KEY = {entity.join_key: entity for entity in (USER, ITEM, QUERY, CATEGORY)}
"""Join key -> entity; a view of user x category has both."""

ENTITIES = {
    name: [BY_JOIN_KEY[key] for key in join_keys] for name, join_keys in ENTITY_KEYS.items()
}
"""Entity of `features/schema.py` -> Feast entities of its views."""
