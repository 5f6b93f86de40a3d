"""The two heads of OnePiece: they read user vectors and logits from the reasoning blocks."""

# Shape suffixes: B = requests, T = tokens, D = width, G = groups, M = rows of a block,
#                 K = blocks in, tasks out, J = depths, C = G * M slots,
#                 P = places of the history, then of the anchors.

import torch
from torch import Tensor, nn

from onepiece.models.attention import MASKED
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.tokens import ItemMap


class RetrievalHead(nn.Module):
    """Reads user vectors from blocks and item vectors from embeddings."""

    def __init__(self, recipe: OnePieceRecipe, item_width: int, *, num_places: int) -> None:
        super().__init__()
        self.separate_recall = recipe.separate_recall
        self.blocks = recipe.blocks_of(
            len(recipe.retrieval_tasks), num_steps=recipe.num_retrieval_steps
        )
        self.step_embeddings_KD = _step_embeddings(recipe.num_retrieval_steps, recipe.width)
        self.norm = nn.LayerNorm(recipe.width)
        if recipe.recognition_width:
            self.recall_query = nn.Linear(recipe.width, recipe.width)
            self.recall_key = nn.Linear(recipe.width, recipe.width)
            # Chosen here: a token starts with a weight of 0.3, as the match bias starts above 0.
            self.recall_bias = nn.Parameter(torch.tensor(-1.0))
        if recipe.separate_recall:
            # Tokens are learned for the vectors, so their place is told apart.
            self.recall_places_P = nn.Parameter(torch.zeros(num_places))
        id_weight = 1.0 if recipe.ties_item_ids else 0.0
        self.item = ItemMap(item_width, recipe.width, id_weight=id_weight)

    def recall(self, users_BKD: Tensor, tokens_BTD: Tensor, places_BT: Tensor) -> Tensor:
        """Says how much each user vector asks for the item of each token: (B, K, T), above 0.

        Weights are not normalised: who buys ten items again and again wants each of them as
        much as one who buys a single one.
        """
        if self.separate_recall:
            users_BKD, tokens_BTD = users_BKD.detach(), tokens_BTD.detach()
        keys_BTD = self.recall_key(tokens_BTD)
        scale = keys_BTD.shape[-1] ** -0.5
        logits_BKT = scale * self.recall_query(users_BKD) @ keys_BTD.transpose(1, 2)
        if self.separate_recall:
            logits_BKT = logits_BKT + self.recall_places_P[places_BT][:, None]
        return nn.functional.softplus(logits_BKT + self.recall_bias)

    def user(self, blocks_BKMD: Tensor) -> Tensor:
        """Averages the normalised rows of each task's block: (B, K, D)."""
        user_BKD: Tensor = self.norm(blocks_BKMD[:, self.blocks]).mean(2)
        return user_BKD


class RankingHead(nn.Module):
    """Reads one logit a candidate and task."""

    def __init__(self, recipe: OnePieceRecipe) -> None:
        super().__init__()
        self.blocks = recipe.blocks_of(
            len(recipe.ranking_tasks), num_steps=recipe.num_ranking_steps
        )
        self.step_embeddings_KD = _step_embeddings(recipe.num_ranking_steps, recipe.width)
        self.scores = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(recipe.width),
                nn.Linear(recipe.width, recipe.width),
                nn.GELU(),
                nn.Linear(recipe.width, 1),
            )
            for _ in recipe.ranking_tasks
        )

    def forward(self, blocks_BKGMD: Tensor) -> Tensor:
        """Returns (B, G, M, K) logits."""
        logits = [
            score(blocks_BKGMD[:, block]).squeeze(-1)
            for block, score in zip(self.blocks, self.scores, strict=True)
        ]
        return torch.stack(logits, dim=-1)

    def at_every_depth(self, blocks_BKGMD: Tensor) -> Tensor:
        """Returns (B, J, G, M, K) logits as if reasoning stopped after 0, 1, ... steps.

        A task whose block is not reached reads the newest there is; all others their own.
        """
        depths_J = torch.arange(blocks_BKGMD.shape[1], device=blocks_BKGMD.device)
        logits = [
            score(blocks_BKGMD[:, : block + 1]).squeeze(-1)[:, depths_J.clamp(max=block)]
            for block, score in zip(self.blocks, self.scores, strict=True)
        ]
        return torch.stack(logits, dim=-1)

    def shares(self, block_BGMD: Tensor, is_candidate_BGM: Tensor) -> Tensor:
        """Returns (B, C): the last task's softmax over all candidates of a request, 0 elsewhere."""
        logits_BGM: Tensor = self.scores[-1](block_BGMD).squeeze(-1)
        return logits_BGM.masked_fill(~is_candidate_BGM, MASKED).flatten(1).softmax(-1)


def _step_embeddings(num_steps: int, width: int) -> nn.Parameter:
    """E_RPE; chosen here: starts small, so that a step starts from the block it continues."""
    return nn.Parameter(0.02 * torch.randn(num_steps, width))
