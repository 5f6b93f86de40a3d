"""Where a server's files lie, and a first request made from them; imports no model."""

from dataclasses import dataclass
from pathlib import Path

from onepiece.errors import NotFound
from onepiece.events.schema import MAX_AT_MS
from onepiece.features.item_table import ItemTables
from onepiece.serving.schemas import RecommendRequest

BUNDLE, INDEX, ITEM_TABLES, STORE = "bundle", "index", "item_tables", "store"
RANKING_BUNDLE, RECIPE = "ranking_bundle", "serving.yaml"
"""Names of a release's parts; the last two need not be there."""
_WARM_UP_ID = "warm-up"


@dataclass(frozen=True, slots=True)
class ServingPaths:
    """Where everything lies."""

    bundle: Path
    """Folder of the bundle."""
    index: Path
    """Folder of the index built from it."""
    store: Path
    """Folder of the Feast store."""
    item_tables: Path
    """Folder of the item tables."""
    ranking_bundle: Path | None = None
    """Folder of the bundle that ranks; None if `bundle` does both."""
    recipe: Path | None = None
    """YAML of the serving recipe; None for its defaults."""
    release: Path | None = None
    """Folder of the release (`serving/release.py`) that they are parts of; None for single ones."""

    @classmethod
    def of_release(
        cls, folder: Path, *, store: Path | None = None, item_tables: Path | None = None
    ) -> "ServingPaths":
        """Names the parts of a release.

        Args:
            folder: Its folder.
            store: Another feature store than the release's own.
            item_tables: Other item tables, to which each day adds one.
        """
        ranking_bundle, recipe = folder / RANKING_BUNDLE, folder / RECIPE
        return cls(
            bundle=folder / BUNDLE,
            index=folder / INDEX,
            store=store or folder / STORE,
            item_tables=item_tables or folder / ITEM_TABLES,
            ranking_bundle=ranking_bundle if ranking_bundle.exists() else None,
            recipe=recipe if recipe.exists() else None,
            release=folder,
        )


def check_paths(paths: ServingPaths) -> None:
    """Checks that every folder is there, before a cluster is started for nothing.

    Raises:
        NotFound: A folder is missing.
    """
    for name in ("release", "bundle", "index", "store", "item_tables", "ranking_bundle"):
        folder: Path | None = getattr(paths, name)
        if folder is not None and not folder.is_dir():
            option = "--" + name.replace("_", "-")
            raise NotFound(f"{option} {folder} is no folder; give the one that was written")


def warm_up_request(item_tables: Path) -> RecommendRequest:
    """Makes a request that exercises both stages, on the newest item table.

    Raises:
        NotFound: There is no item table.
    """
    table = ItemTables(item_tables).at(MAX_AT_MS)
    pools = (
        (store_id, category_id)
        for store_id in table.store_ids
        for category_id in table.category_ids
        if len(table.pool(store_id, category_id))
    )
    store_id, category_id = next(pools, (_WARM_UP_ID, _WARM_UP_ID))
    return RecommendRequest(
        request_id=_WARM_UP_ID,
        user_id=_WARM_UP_ID,
        query_id=category_id,
        store_id=store_id,
        as_of_ms=table.valid_from_ms,
    )
