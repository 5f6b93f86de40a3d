"""Every model there is: one recipe each, told apart by `kind`, and how to build it.

All read the same context and offer the same methods, so training, bundles, index and serving
know this module and no model by name.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.dlrm_ranker import DlrmRanker, DlrmRankerRecipe
from onepiece.models.dlrm_towers import DlrmTowers, DlrmTowersRecipe
from onepiece.models.gru4rec import Gru4Rec, Gru4RecRecipe
from onepiece.models.hstu import Hstu, HstuRecipe
from onepiece.models.onepiece import OnePiece
from onepiece.models.protocols import Model
from onepiece.models.rearec import ReaRec, ReaRecRecipe
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.sasrec import SasRec, SasRecRecipe

DEFAULT_KIND = "onepiece"
"""Model of a recipe that names none."""


def _kind_of(value: Any) -> Any:
    """Finds the kind in a document or in a recipe."""
    if isinstance(value, dict):
        return value.get("kind", DEFAULT_KIND)
    return getattr(value, "kind", DEFAULT_KIND)


ModelRecipe = Annotated[
    Annotated[OnePieceRecipe, Tag("onepiece")]
    | Annotated[SasRecRecipe, Tag("sasrec")]
    | Annotated[HstuRecipe, Tag("hstu")]
    | Annotated[Gru4RecRecipe, Tag("gru4rec")]
    | Annotated[DlrmTowersRecipe, Tag("dlrm_towers")]
    | Annotated[DlrmRankerRecipe, Tag("dlrm_ranker")]
    | Annotated[ReaRecRecipe, Tag("rearec")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_model",
        custom_error_message="kind names no model; give one of onepiece, sasrec, hstu, "
        "gru4rec, dlrm_towers, dlrm_ranker, rearec",
    ),
]
"""The model's half of a bundle's recipe."""


def build_model(recipe: ModelRecipe, *, context: ContextRecipe, vocabulary: Vocabulary) -> Model:
    """Builds an untrained model; draws its weights from torch's random numbers."""
    match recipe:
        case OnePieceRecipe():
            return OnePiece(recipe, context=context, vocabulary=vocabulary)
        case SasRecRecipe():
            return SasRec(recipe, context=context, vocabulary=vocabulary)
        case HstuRecipe():
            return Hstu(recipe, context=context, vocabulary=vocabulary)
        case Gru4RecRecipe():
            return Gru4Rec(recipe, context=context, vocabulary=vocabulary)
        case DlrmTowersRecipe():
            return DlrmTowers(recipe, context=context, vocabulary=vocabulary)
        case DlrmRankerRecipe():
            return DlrmRanker(recipe, context=context, vocabulary=vocabulary)
        case ReaRecRecipe():
            return ReaRec(recipe, context=context, vocabulary=vocabulary)
