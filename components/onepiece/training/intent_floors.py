"""Floors: what rankers without a model reach on examples whose shelf is ranked."""

# Shape suffixes: N = candidates of one request, T = tokens, P = ordered items of all requests.

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onepiece.context.builder import TOKEN_FEATURES, TokenKind
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.training.evaluate import NEVER, shelf_metrics
from onepiece.training.metrics import worst_ranks
from onepiece.training.packed import Examples
from onepiece.training.spine import Stage

_STORE_SALES = CANDIDATE_FEATURES.index("log_store_sales")
_CHAIN_SALES = CANDIDATE_FEATURES.index("log_chain_sales")
_NUM_ORDERS = TOKEN_FEATURES.index("log_num_orders")
_AGE = TOKEN_FEATURES.index("log_age_days")

Request = Mapping[str, NDArray[np.float64]]
"""Columns of one request's tokens and candidates, as `Context` names them."""


def floors(examples: Examples) -> dict[str, dict[str, float]]:
    """Measures each ranker on the validation examples, by `shelf_metrics`; ties count against it.

    - `popular_chain`, `popular_store`: order lines in all stores, or in the request's, in the
      windows of the item table.
    - `own_then_popular`: how often the user ordered the item, then how lately, then what is
      popular in the store, then in the chain. It knows the items of the query's category that are
      in the context.

    Source:
        data.md, "Complete Journey: floors".
    """
    ranks: dict[str, list[NDArray[np.int64]]] = {name: [] for name in _RANKERS}
    rows = examples.rows(is_validation=True)
    for row in rows.tolist():
        request = _request(examples, row)
        is_ordered_N = request["stages"] == Stage.ORDERED
        missed = np.full(int(examples.columns["num_missed"][row]), NEVER)
        for name, score in _RANKERS.items():
            ranks[name] += [worst_ranks(score(request), is_ordered_N), missed]
    return {name: shelf_metrics(np.concatenate(found)) for name, found in ranks.items()}


def _request(examples: Examples, row: int) -> Request:
    columns = examples.columns
    tokens = slice(*columns["token_starts"][row : row + 2].tolist())
    candidates = slice(*columns["candidate_starts"][row : row + 2].tolist())
    names = ("item_rows", "kinds", "token_features")
    request = {name: np.asarray(columns[name][tokens]) for name in names}
    for name in ("candidate_rows", "candidate_features", "stages"):
        request[name] = np.asarray(columns[name][candidates])
    return request


def _popular_chain(request: Request) -> NDArray[np.float64]:
    return request["candidate_features"][:, _CHAIN_SALES].astype(np.float64)


def _popular_store(request: Request) -> NDArray[np.float64]:
    return request["candidate_features"][:, _STORE_SALES].astype(np.float64)


def _own_then_popular(request: Request) -> NDArray[np.float64]:
    """Places candidates by four keys; equal keys share a place, so that they are a tie."""
    is_own_T = request["kinds"] == TokenKind.MEMORY
    own = request["item_rows"][is_own_T].tolist()
    features = request["token_features"][is_own_T]
    keys = zip(features[:, _NUM_ORDERS].tolist(), (-features[:, _AGE]).tolist(), strict=True)
    key_of = dict(zip(own, keys, strict=True))
    own_N2 = np.array(
        [key_of.get(row, (0.0, -np.inf)) for row in request["candidate_rows"].tolist()],
        dtype=np.float64,
    ).reshape(-1, 2)
    all_N4 = np.column_stack([own_N2, _popular_store(request), _popular_chain(request)])
    _, place_N = np.unique(all_N4, axis=0, return_inverse=True)
    return place_N.reshape(-1).astype(np.float64)


_RANKERS: dict[str, Callable[[Request], NDArray[np.float64]]] = {
    "popular_chain": _popular_chain,
    "popular_store": _popular_store,
    "own_then_popular": _own_then_popular,
}
