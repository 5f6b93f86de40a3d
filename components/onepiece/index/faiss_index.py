"""The FAISS index: flat or HNSW, inner product, restricted to each request's items.

HNSW walks a graph of all items, and finds few of a small allowed set. So a request that may get
at most `exact_below` items is scored exactly over just these; only larger sets walk the graph.
"""

# Shape suffixes: B = requests, K = items wanted of each, D = width of a vector,
#                 N = items of the index, A = items that one request may get.

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from onepiece.index.recipe import IndexRecipe
from onepiece.index.search import NO_ROW, Hits, best_rows, stack_hits

# The type stubs that come with faiss-cpu 1.15 lack HNSW's storage and all search parameters.
_FaissObject = Any
_faiss: Any = faiss


class FaissIndex:
    """A `VectorIndex` by FAISS; rows keep the order in which the vectors were added."""

    def __init__(self, index: _FaissObject, recipe: IndexRecipe) -> None:
        # One thread: its graph, and so its answers, are the same at every build; requests run
        # in parallel by replicas.
        _faiss.omp_set_num_threads(1)
        self._index = index
        self._recipe = recipe
        self._is_graph = recipe.kind == "hnsw"
        storage = _faiss.downcast_index(index.storage) if self._is_graph else index
        self._vectors_ND = _faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * index.d).reshape(
            index.ntotal, index.d
        )

    @classmethod
    def from_vectors(cls, vectors_ND: NDArray[np.float32], recipe: IndexRecipe) -> "FaissIndex":
        """Builds an index of (N, D) float32 vectors; the same vectors give the same index."""
        _faiss.omp_set_num_threads(1)
        num_dimensions = int(vectors_ND.shape[1])
        index: _FaissObject
        if recipe.kind == "hnsw":
            index = _faiss.IndexHNSWFlat(
                num_dimensions, recipe.num_links, _faiss.METRIC_INNER_PRODUCT
            )
            index.hnsw.efConstruction = recipe.build_breadth
        else:
            index = _faiss.IndexFlatIP(num_dimensions)
        index.add(np.ascontiguousarray(vectors_ND, dtype=np.float32))
        return cls(index, recipe)

    @classmethod
    def from_bytes(cls, payload: bytes, recipe: IndexRecipe) -> "FaissIndex":
        """Reads what `to_bytes` wrote; its hash is for the caller to check first."""
        return cls(_faiss.deserialize_index(np.frombuffer(payload, dtype=np.uint8)), recipe)

    def to_bytes(self) -> bytes:
        """Writes the index in FAISS's own file format."""
        payload: bytes = _faiss.serialize_index(self._index).tobytes()
        return payload

    @property
    def num_items(self) -> int:
        """N, items in the index."""
        return int(self._index.ntotal)

    @property
    def num_dimensions(self) -> int:
        """D, width of a vector."""
        return int(self._index.d)

    def search(
        self,
        query_BD: NDArray[np.float32],
        num_wanted: int,
        *,
        allowed: Sequence[NDArray[np.int64]],
    ) -> Hits:
        """Searches small allowed sets exactly, larger ones by FAISS; see `VectorIndex.search`."""
        found = []
        for query_D, rows_A in zip(query_BD, allowed, strict=True):
            if len(rows_A) <= self._recipe.exact_below:
                scores_A = self._vectors_ND[rows_A] @ query_D
                found.append(best_rows(rows_A, scores_A, num_wanted))
            else:
                found.append(self._search_by_faiss(query_D, num_wanted, rows_A))
        return stack_hits(found, num_wanted)

    def _search_by_faiss(
        self, query_D: NDArray[np.float32], num_wanted: int, rows_A: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        selector = _faiss.IDSelectorBatch(rows_A)
        if self._is_graph:
            breadth = max(self._recipe.search_breadth, num_wanted)
            parameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
        else:
            parameters = _faiss.SearchParameters(sel=selector)
        query_BD = np.ascontiguousarray(query_D[None], dtype=np.float32)
        scores_BK, rows_BK = self._index.search(
            query_BD, min(num_wanted, len(rows_A)), params=parameters
        )
        is_found_K = rows_BK[0] != NO_ROW
        return best_rows(rows_BK[0][is_found_K], scores_BK[0][is_found_K], num_wanted)
