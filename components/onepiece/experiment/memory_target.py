"""A rollout without a cluster: to rehearse a plan, and to stop it anywhere in tests."""

from onepiece.experiment.rollout import ALL, RolloutState, Verdict, Weights
from onepiece.experiment.rollout_controller import Routes


class MemoryTarget:
    """Two routes in memory, whose servers are always ready."""

    def __init__(self, *, weights: Weights = (ALL, 0)) -> None:
        self.http: Weights = weights
        self.grpc: Weights = weights
        self.state: RolloutState | None = None
        self.told: dict[int, str] = {}
        """Number of a change -> its reason."""

    def read(self) -> Routes:
        """Gives what was written."""
        return Routes(self.http, self.grpc, self.state)

    def readiness(self, arm: str) -> Verdict:
        """Says that every arm is ready."""
        return Verdict(True, f"{arm} is in memory")

    def write_http(self, state: RolloutState, weights: Weights | None) -> None:
        """Keeps state and weights."""
        self.state = state
        self.http = weights or self.http

    def write_grpc(self, weights: Weights) -> None:
        """Keeps weights."""
        self.grpc = weights

    def tell(self, state: RolloutState) -> None:
        """Keeps the reason, once."""
        self.told[state.transition] = state.reason
