"""The verbs of `onepiece events` that are about Kafka's topics."""

import argparse
import json
import os
import sys
from dataclasses import asdict

from onepiece.events.log_options import kafka_settings


def add_topic_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `topics`, `acls` and `dead-letters`."""
    topics = subparsers.add_parser(
        "topics",
        help="show, make or render Kafka's topics",
        description="Show every topic, make them on a cluster, or write them as KafkaTopic "
        "objects of Strimzi.",
        epilog="example: onepiece events topics --apply",
    )
    what = topics.add_mutually_exclusive_group()
    what.add_argument(
        "--apply",
        action="store_true",
        help="make the topics that are missing on the cluster that ONEPIECE_KAFKA_* names, and "
        "set the configuration of the others",
    )
    what.add_argument(
        "--render", action="store_true", help="write KafkaTopic objects, as YAML, to stdout"
    )
    topics.add_argument(
        "--prefix", default="onepiece", help="of the names, with --render (default %(default)s)"
    )
    topics.add_argument(
        "--partitions", type=int, default=8, help="with --render (default %(default)s)"
    )
    topics.add_argument(
        "--replicas", type=int, default=3, help="with --render (default %(default)s)"
    )
    topics.add_argument(
        "--cluster",
        default="kafka",
        help="name of the Kafka object, with --render (default %(default)s)",
    )
    topics.set_defaults(run=_run_topics)
    acls = subparsers.add_parser(
        "acls",
        help="show, grant or render who may do what on Kafka",
        description="Show what each role may do, let a user do what a role does, or write the "
        "roles as KafkaUser objects of Strimzi.",
        epilog="example: onepiece events acls --apply history --user onepiece-history",
    )
    access = acls.add_mutually_exclusive_group()
    access.add_argument(
        "--apply",
        metavar="ROLE",
        help="grant this role on the cluster that ONEPIECE_KAFKA_* names",
    )
    access.add_argument(
        "--render", action="store_true", help="write KafkaUser objects, as YAML, to stdout"
    )
    acls.add_argument("--user", help="SASL user, with --apply (default PREFIX-ROLE)")
    acls.add_argument(
        "--prefix", default="onepiece", help="of the names, with --render (default %(default)s)"
    )
    acls.add_argument(
        "--cluster",
        default="kafka",
        help="name of the Kafka object, with --render (default %(default)s)",
    )
    acls.set_defaults(run=_run_acls)
    letters = subparsers.add_parser(
        "dead-letters",
        help="list or replay the messages that were no event",
        description="List what no reader could use, with the reason and where it lay; or send "
        "what has become readable to its topic, each message once.",
        epilog="example: onepiece events dead-letters list --limit 5 --json",
    )
    letters.add_argument("action", choices=("list", "replay"))
    letters.add_argument(
        "--limit", type=int, help="newest letters of each partition to list (default: all)"
    )
    letters.add_argument("--json", action="store_true", help="one JSON object a line")
    letters.set_defaults(run=_run_dead_letters)


def _run_topics(args: argparse.Namespace) -> int:
    if args.render:
        return _render(args)
    if args.apply:
        return _apply()
    from onepiece.events.topics import TOPICS

    for topic in TOPICS:
        kept = "for ever" if topic.retention_days is None else f"{topic.retention_days} days"
        partitions = "by user" if topic.is_by_user else "one partition"
        sys.stdout.write(
            f"{topic.name:18} {topic.cleanup:8} {kept:9} {partitions:14} {topic.holds}\n"
        )
    return 0


def _render(args: argparse.Namespace) -> int:
    import yaml

    from onepiece.events.topics import kafka_topics

    objects = kafka_topics(
        prefix=args.prefix,
        num_partitions=args.partitions,
        replication_factor=args.replicas,
        cluster=args.cluster,
    )
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False)
    return 0


def _apply() -> int:
    from onepiece.events.kafka_topics import apply_topics

    made, changed = apply_topics(kafka_settings(os.environ))
    for word, names in (("made", made), ("changed", changed)):
        sys.stdout.write(f"{word}: {', '.join(names) or 'nothing'}\n")
    return 0


def _run_acls(args: argparse.Namespace) -> int:
    from onepiece.events.acls import ROLES, kafka_users

    if args.render:
        import yaml

        users = kafka_users(prefix=args.prefix, cluster=args.cluster)
        yaml.safe_dump_all(users, sys.stdout, sort_keys=False)
        return 0
    if args.apply is not None:
        from onepiece.events.kafka_acls import grant_role

        settings = kafka_settings(os.environ)
        user = args.user or settings.topic(args.apply)
        number = grant_role(settings, args.apply, user=user)
        sys.stdout.write(f"user {user} may do what {args.apply} does: {number} rules\n")
        return 0
    for role in ROLES:
        sys.stdout.write(f"{role.name}: {role.does}\n")
        for grant in role.grants:
            names = ", ".join(f"{name}*" if grant.is_prefix else name for name in grant.names)
            sys.stdout.write(f"    {grant.resource} {names}: {', '.join(grant.operations)}\n")
    return 0


def _run_dead_letters(args: argparse.Namespace) -> int:
    from onepiece.events.kafka_dead_letters import list_dead_letters, replay_dead_letters

    settings = kafka_settings(os.environ)
    if args.action == "replay":
        replayed = replay_dead_letters(settings)
        if args.json:
            sys.stdout.write(json.dumps(asdict(replayed)) + "\n")
        else:
            sys.stdout.write(
                f"sent {replayed.num_sent} to their topics; {replayed.num_kept} still are none\n"
            )
        return 0
    for letter in list_dead_letters(settings, limit=args.limit):
        if args.json:
            fields = asdict(letter)
            # As they came: bytes that are no text are escaped, and nothing is lost.
            for name in ("key", "value"):
                fields[name] = fields[name].decode("utf-8", "backslashreplace")
            sys.stdout.write(json.dumps(fields) + "\n")
            continue
        sys.stdout.write(
            f"{letter.partition}:{letter.offset} from {letter.topic}:{letter.topic_offset} "
            f"{letter.reason}; {len(letter.value)} bytes: {letter.value[:80]!r}\n"
        )
    return 0
