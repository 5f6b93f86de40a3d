"""What a bundle must be to be served; checked when a server starts, not when it is asked."""

import logging
from collections.abc import Sequence

from onepiece.bundle import Bundle
from onepiece.errors import InvalidInput
from onepiece.features.schema import LIST_FEATURES

log = logging.getLogger(__name__)


def check_servable(bundle: Bundle, ranking_bundle: Bundle) -> None:
    """Refuses a bundle that lacks the head it is for, or reads what no request brings.

    A bundle from before bundles said what their requests were is served, with a warning.

    Args:
        bundle: Retrieves.
        ranking_bundle: Ranks; the same one if one model does both, or ranks as it retrieves.

    Raises:
        InvalidInput: It is refused.
    """
    _check_head("retrieval", bundle, bundle.recipe.model.retrieval_tasks)
    _check_requests(bundle)
    if ranking_bundle is not bundle:
        _check_head("ranking", ranking_bundle, ranking_bundle.recipe.model.ranking_tasks)
        _check_requests(ranking_bundle)


def _check_head(stage: str, bundle: Bundle, tasks: Sequence[str]) -> None:
    if not tasks:
        raise InvalidInput(
            f"bundle {bundle.version} has no {stage} head; give one model with both heads, or two "
            "bundles: --bundle one that retrieves, --ranking-bundle one that ranks"
        )


def _check_requests(bundle: Bundle) -> None:
    if bundle.recipe.requests == "shown_list":
        raise InvalidInput(
            f"bundle {bundle.version} was trained with the features of shown lists "
            f"({', '.join(LIST_FEATURES)}), which no request to a server brings: they would be 0 "
            "where the model learned from other values; set pages.has_list_features: false, build "
            "the examples again and train again, or give a bundle that was trained without them"
        )
    if bundle.recipe.requests is None:
        log.warning(
            "bundle does not say what its requests were in training, so nothing shows that it is "
            "served the same; train it again",
            extra={"bundle_version": bundle.version},
        )
