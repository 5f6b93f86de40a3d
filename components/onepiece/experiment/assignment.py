"""Who gets which arm: sticky, exact, and the same in every process and on every machine.

The hash is BLAKE2b, which Python seeds nowhere: an arm survives restarts and agrees between
replicas. (Python's own `hash` and Go's `hash/maphash` are seeded per process, and so give a user
another arm after a restart.) An arm's share is a count of buckets, not a hash multiplied by a
weight, so a 90/10 plan is a 90/10 split.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from onepiece.errors import InvalidRequest, NotFound
from onepiece.events.schema import MAX_IDENTIFIER_LENGTH, Identifier
from onepiece.experiment.layers import bucket_table
from onepiece.experiment.plan import NUM_BUCKETS, ExperimentPlan

_USER_ID: TypeAdapter[str] = TypeAdapter(Identifier)
_NOBODY: Mapping[str, str] = MappingProxyType({})


def bucket_of(user_id: str, *, salt: str, layer: str) -> int:
    """Says which of a layer's 10,000 buckets a user is in; never changes.

    The parts are joined by NUL, which neither a salt nor an id may contain, so that no two
    triples hash alike by running into each other. 64 bits modulo 10,000 favour no bucket by more
    than 1 in 10^15.

    Returns:
        0 to 9,999.
    """
    words = "\x00".join((salt, layer, user_id)).encode()
    digest = hashlib.blake2b(words, digest_size=8).digest()
    return int.from_bytes(digest, "big") % NUM_BUCKETS


class Assignment(Protocol):
    """Gives users their arms."""

    def arms_of(self, user_id: str) -> Mapping[str, str]:
        """Layer -> arm for every layer of the plan; empty if the user takes no part."""
        ...


class PlannedAssignment:
    """Assigns by hash, as the plan says."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self._plan = plan
        self._tables = [bucket_table(layer) for layer in plan.layers]

    def arms_of(self, user_id: str) -> Mapping[str, str]:
        """Layer -> arm for every layer of the plan; empty if the user takes no part.

        Raises:
            InvalidRequest: The id is empty, too long, or holds a control character.
        """
        try:
            _USER_ID.validate_python(user_id)
        except ValidationError as error:
            raise InvalidRequest(
                f"user_id {ascii(user_id)[:80]} is not an id: 1 to {MAX_IDENTIFIER_LENGTH} "
                "characters, no control characters; give the id that events carry"
            ) from error
        plan = self._plan
        if bucket_of(user_id, salt=plan.traffic_salt, layer="") >= plan.traffic_bp:
            return _NOBODY
        return {
            layer.name: layer.arm_names[
                table[bucket_of(user_id, salt=layer.salt, layer=layer.name)]
            ]
            for layer, table in zip(plan.layers, self._tables, strict=True)
        }


class FixedAssignment:
    """Gives every user the same arms: for counterfactual replays and for looking at one arm.

    Its exposures are no random sample of anything: log them apart from an experiment's.
    """

    def __init__(self, plan: ExperimentPlan, arms: Mapping[str, str]) -> None:
        """Checks that `arms` names one arm for each layer.

        Raises:
            NotFound: A layer or an arm that the plan does not have, or a layer without arm.
        """
        for layer_name, arm_name in arms.items():
            plan.layer(layer_name).arm(arm_name)
        missing = [layer.name for layer in plan.layers if layer.name not in arms]
        if missing:
            raise NotFound(f"no arm was given for layer {', '.join(missing)}; give one for each")
        self._arms = MappingProxyType(dict(arms))

    def arms_of(self, user_id: str) -> Mapping[str, str]:
        """Layer -> arm: the arms given, whoever the user is."""
        return self._arms
