"""Grants the roles of `acls.py` on a cluster."""

from contextlib import closing

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from onepiece.errors import NotFound
from onepiece.events.acls import ROLES, Grant
from onepiece.events.kafka_clients import explained, new_admin
from onepiece.events.kafka_settings import KafkaSettings

_TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.CLUSTER,
}
_OPERATIONS = {
    "Read": ACLOperation.READ,
    "Write": ACLOperation.WRITE,
    "Create": ACLOperation.CREATE,
    "Describe": ACLOperation.DESCRIBE,
    "DescribeConfigs": ACLOperation.DESCRIBE_CONFIGS,
    "Alter": ACLOperation.ALTER,
    "AlterConfigs": ACLOperation.ALTER_CONFIGS,
}


def grant_role(settings: KafkaSettings, role_name: str, *, user: str) -> int:
    """Lets a user do what a role does; what it may do already, it may go on doing.

    Args:
        settings: Where the brokers are; of a user that may alter the cluster.
        role_name: Of `ROLES`.
        user: Name of a SASL user; it need not exist yet.

    Returns:
        Number of rules, those that were there included.

    Raises:
        NotFound: There is no such role.
        EventLogUnavailable: No broker answers, or it refused.
    """
    grants = {role.name: role.grants for role in ROLES}
    if role_name not in grants:
        raise NotFound(f"no role {role_name!r}; the roles are {', '.join(grants)}")
    rules = [rule for grant in grants[role_name] for rule in _rules(settings, grant, user)]
    with explained(settings, "grant access"), closing(new_admin(settings)) as admin:
        for error in admin.create_acls(rules)["failed"]:
            raise error(f"role {role_name}, user {user}")
    return len(rules)


def _rules(settings: KafkaSettings, grant: Grant, user: str) -> list[ACL]:
    kind = ACLResourcePatternType.PREFIXED if grant.is_prefix else ACLResourcePatternType.LITERAL
    # Kafka's own name of the one resource that is a cluster.
    names = [
        "kafka-cluster" if grant.resource == "cluster" else settings.topic(n) for n in grant.names
    ]
    return [
        ACL(
            principal=f"User:{user}",
            host="*",
            operation=_OPERATIONS[operation],
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(_TYPES[grant.resource], name, kind),
        )
        for name in names
        for operation in grant.operations
    ]
