"""The access lists: what is granted to whom, and how Strimzi reads it."""

from onepiece.events.acls import ROLES, kafka_users
from onepiece.events.topics import DEAD_LETTERS, ITEMS, LATE, TOPICS


def who_may(operation: str, topic: str) -> set[str]:
    return {
        role.name
        for role in ROLES
        for grant in role.grants
        for name in grant.names
        if grant.resource == "topic" and operation in grant.operations
        if topic == name or (grant.is_prefix and topic.startswith(name))
    }


def test_only_the_router_and_who_replays_dead_letters_append_exposures():
    assert who_may("Write", "exposures") == {"router", "dead-letters"}


def test_only_the_admin_makes_topics_and_touches_the_cluster():
    assert who_may("Create", "clicks") == {"admin"}
    assert who_may("Create", "history-2-changelog") == {"admin", "rebuild"}
    assert {
        role.name for role in ROLES for grant in role.grants if grant.resource == "cluster"
    } == {"admin"}


def test_every_topic_that_is_used_has_a_writer_and_a_reader():
    for topic in TOPICS:
        if topic is not ITEMS:
            assert who_may("Write", topic.name), topic.name
        if topic not in (ITEMS, LATE):
            assert who_may("Read", topic.name), topic.name
    assert who_may("Read", DEAD_LETTERS.name) == {"dead-letters"}


def test_a_role_is_a_user_of_strimzi_with_whole_names():
    users = {user["metadata"]["name"]: user for user in kafka_users(prefix="shop", cluster="k")}

    acls = users["shop-router"]["spec"]["authorization"]["acls"]
    assert {
        "resource": {"type": "topic", "name": "shop-exposures", "patternType": "literal"},
        "operations": ["Write"],
    } in acls
    assert {
        "resource": {"type": "transactionalId", "name": "shop-log-", "patternType": "prefix"},
        "operations": ["Write"],
    } in acls
    assert {"resource": {"type": "cluster"}, "operations": ["Describe", "Alter"]} in users[
        "shop-admin"
    ]["spec"]["authorization"]["acls"]
