"""The verbs of `onepiece events` that are about Kafka's topics."""

import argparse
import os
import sys

from onepiece.events.log_options import kafka_settings


def add_topic_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `topics`."""
    topics = subparsers.add_parser(
        "topics",
        help="show, make or render Kafka's topics",
        description="Show every topic, make them on a cluster, or write them as KafkaTopic "
        "objects of Strimzi.",
        epilog="example: ONEPIECE_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 onepiece events topics "
        "--apply",
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
