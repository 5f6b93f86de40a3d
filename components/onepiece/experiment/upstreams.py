"""Where the router's requests go: one server for all arms, or one for each arm of a layer."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from onepiece.errors import DeadlineExceeded, InvalidRecipe, OnePieceError, Unavailable
from onepiece.experiment.assignment import Assignment
from onepiece.experiment.plan import ExperimentPlan, Layer, Name
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.schemas import (
    Answer,
    AnyRequest,
)

ARM_HEADER = "x-onepiece-arm"
"""Header (gRPC: metadata) by which a gateway chooses an arm's servers."""
_GRPC = "grpc://"
Address = Annotated[str, StringConstraints(pattern=r"^(grpc|http)://[^\s/]+$", max_length=300)]
"""grpc://host:port or http://host:port."""


class Upstreams(BaseModel):
    """The servers behind a router; a setting of the deployment, as a file beside the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address | None = Field(
        None, description="Server of every arm that `arms` does not name: grpc:// or http://."
    )
    layer: Name | None = Field(
        None, description="Layer of the plan whose arms have servers of their own."
    )
    arms: dict[Name, Address] = Field(
        default_factory=dict, description="Arm of the layer -> address of its servers."
    )
    is_arm_sent: bool = Field(
        False,
        description=f"Whether each request carries its arm of the layer as {ARM_HEADER}, for a "
        "gateway at `address` that chooses the servers by it.",
    )

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.address is None and not self.arms:
            raise ValueError("neither address nor arms is given; give one server at least")
        if self.layer is None and (self.arms or self.is_arm_sent):
            raise ValueError("arms or is_arm_sent is given without layer; name the arms' layer")
        if self.layer is not None and not self.arms and not self.is_arm_sent:
            raise ValueError(f"layer is {self.layer!r} and its arms differ in nothing; drop it")
        return self


class ArmClients(ServingClient):
    """Asks the server of a user's arm.

    A wait never exceeds the one that it was made with; over gRPC the server is told how long.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        plan: ExperimentPlan,
        assignment: Assignment,
        *,
        timeout_s: float,
        max_connections: int,
    ) -> None:
        """Makes the clients; they connect when first used.

        Args:
            upstreams: Where the servers are.
            plan: Names the arms.
            assignment: Who gets which arm.
            timeout_s: Longest wait for one answer.
            max_connections: To one REST server.

        Raises:
            InvalidRecipe: `upstreams` names what the plan does not have, or leaves out an arm.
        """
        self._assignment = assignment
        self._timeout_s = timeout_s
        self._layer = None if upstreams.layer is None else _layer_of(plan, upstreams)
        arms = [""] if self._layer is None else list(self._layer.arm_names)
        self._clients: dict[str, ServingClient] = {}
        self._places: dict[str, str] = {}
        self._closing = ExitStack()
        for arm in arms:
            address = upstreams.arms.get(arm, upstreams.address)
            if address is None:
                raise InvalidRecipe(f"arm {arm!r} has no address; give one to it, or `address`")
            headers = {ARM_HEADER: arm} if upstreams.is_arm_sent else {}
            client = _client(address, headers, timeout_s, max_connections)
            self._closing.callback(client.close)
            self._clients[arm] = client
            self._places[arm] = f"the servers of arm {arm!r}, {address}," if arm else address

    def ask(self, method: str, request: AnyRequest, *, timeout_s: float | None = None) -> Answer:
        """Asks the servers of the user's arm."""
        arm = "" if self._layer is None else self._arm_of(request.user_id)
        longest_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        try:
            return self._clients[arm].ask(method, request, timeout_s=longest_s)
        except (Unavailable, DeadlineExceeded) as error:
            raise type(error)(f"{self._places[arm]} gave no answer: {error}") from error

    def check(self) -> None:
        """Asks every server whether it answers.

        Raises:
            Unavailable: One does not; it is named.
        """
        for arm, client in self._clients.items():
            try:
                client.check()
            except OnePieceError as error:
                raise Unavailable(f"{self._places[arm]} do not answer: {error}") from error

    def close(self) -> None:
        """Closes the connections."""
        self._closing.close()

    def _arm_of(self, user_id: str) -> str:
        """Names her arm; who takes no part gets the control."""
        assert self._layer is not None  # noqa: S101 - asked only then
        arms: Mapping[str, str] = self._assignment.arms_of(user_id)
        return arms.get(self._layer.name, self._layer.control)


def _layer_of(plan: ExperimentPlan, upstreams: Upstreams) -> Layer:
    layer = next((one for one in plan.layers if one.name == upstreams.layer), None)
    if layer is None:
        raise InvalidRecipe(
            f"upstreams: layer is {upstreams.layer!r}; the plan has "
            f"{', '.join(one.name for one in plan.layers)}"
        )
    if unknown := sorted(set(upstreams.arms) - set(layer.arm_names)):
        raise InvalidRecipe(
            f"upstreams: arms names {unknown[0]!r}; layer {layer.name!r} has "
            f"{', '.join(layer.arm_names)}"
        )
    return layer


def _client(
    address: str, headers: Mapping[str, str], timeout_s: float, max_connections: int
) -> ServingClient:
    if address.startswith(_GRPC):
        return GrpcClient(address.removeprefix(_GRPC), timeout_s=timeout_s, metadata=headers)
    return HttpClient(
        address, timeout_s=timeout_s, headers=headers, max_connections=max_connections
    )
