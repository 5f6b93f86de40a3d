"""Writes answers from what the strategies found."""

from dataclasses import dataclass

from onepiece.context.builder import Context
from onepiece.context.parts import part_digests
from onepiece.serving.rank import Ranked
from onepiece.serving.retrieve import Asked, Candidates
from onepiece.serving.schemas import Answer, AnswerItem, AnyRequest, PreRankRequest


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answered a group of requests, and how."""

    retriever: str
    """Who chose; empty for a pre-rank."""
    ranker: str
    """Who ordered; empty for a retrieval."""
    model_version: str
    """Version of the bundle; empty if no model was read."""
    degraded_by: str
    """Why a fallback answered; empty if none did."""


def write_answer(
    request: AnyRequest,
    asked: Asked,
    *,
    candidates: Candidates,
    ranked: Ranked,
    origin: Origin,
    context: Context | None,
) -> Answer:
    """Writes the answer to one request: its best `count` items, and how it came about.

    Args:
        request: What was asked.
        asked: The same with what is known of it.
        candidates: What was to be ordered.
        ranked: Their order.
        origin: Who answered.
        context: What the model read; None if none did.
    """
    given = given_item_ids(request)
    parts = {}
    if context is not None:
        rows = candidates.rows[ranked.order[: request.count]]
        parts = part_digests(context, asked.shelf.candidate_features(rows))
    return Answer(
        request_id=request.request_id,
        items=_items(candidates, ranked, request.count),
        as_of_ms=asked.as_of_ms,
        model_version=origin.model_version,
        context_digest=context.digest() if context else "",
        context_parts=parts,
        retriever=origin.retriever,
        ranker=origin.ranker,
        is_known_user=asked.signals.is_known_user,
        is_known_query=asked.shelf.category_id is not None or asked.signals.is_known_query,
        degraded_by=origin.degraded_by,
        num_unknown_items=ranked.num_unknown,
        num_duplicate_items=len(given) - len(set(given)),
    )


def given_item_ids(request: AnyRequest) -> tuple[str, ...]:
    """Lists the candidates that a request brings; empty unless it is a pre-rank."""
    return request.item_ids if isinstance(request, PreRankRequest) else ()


def _items(candidates: Candidates, ranked: Ranked, count: int) -> tuple[AnswerItem, ...]:
    nothing: list[float | None] = [None] * count
    click, cart, order = (
        ranked.probabilities[task][:count].tolist() if task in ranked.probabilities else nothing
        for task in ("click", "cart", "order")
    )
    return tuple(
        AnswerItem(
            item_id=candidates.item_ids[place],
            score=score,
            click_probability=click[index],
            cart_probability=cart[index],
            order_probability=order[index],
            source=candidates.sources[place],
        )
        for index, (place, score) in enumerate(
            zip(ranked.order[:count].tolist(), ranked.scores[:count].tolist(), strict=True)
        )
    )
