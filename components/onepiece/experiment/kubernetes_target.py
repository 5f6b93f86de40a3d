"""A rollout on Kubernetes: the chart's HTTPRoute and GRPCRoute of one stage.

The only module that imports `kubernetes`. Objects are read and patched as they are (dictionaries),
so that fields which this code does not know stay.
"""

import copy
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.config import load_config
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from onepiece.errors import Conflict, InvalidInput, NotFound, Unavailable
from onepiece.experiment.rollout import RolloutPlan, RolloutState, Verdict, Weights
from onepiece.experiment.rollout_controller import Routes

ANNOTATION = "onepiece-rollout"
"""On the HTTPRoute: the state. Beside the weights, because one patch then writes both; a ConfigMap
would be a second object that a crash leaves behind (docs/decisions/0032)."""
_OWNER = "onepiece-rollout"
_TIMEOUT_S = 10.0
_GATEWAY = ("gateway.networking.k8s.io", "v1")
_HOSTS = {
    "-predictor": ("serving.kserve.io", "v1beta1", "inferenceservices"),
    "-serve-svc": ("ray.io", "v1", "rayservices"),
}
"""End of the name of a host's Service -> what makes it (charts/onepiece/templates/_serving.tpl)."""

Object = dict[str, Any]


def connect() -> CustomObjectsApi:
    """Finds the cluster as kubectl does, or by the pod's service account.

    Raises:
        NotFound: There is neither.
    """
    try:
        load_config()  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise NotFound(
            "no cluster is configured; set KUBECONFIG, or run in a pod with a service account"
        ) from error
    return CustomObjectsApi()


class KubernetesTarget:
    """The routes of a plan in a namespace, under optimistic locking."""

    def __init__(self, api: CustomObjectsApi, *, namespace: str, plan: RolloutPlan) -> None:
        self._api = api
        self._namespace = namespace
        self._plan = plan
        self._http: Object = {}
        self._grpc: Object = {}
        self._told: int | None = None

    def read(self) -> Routes:
        """Reads both routes.

        Raises:
            NotFound: One of them is not there.
            InvalidInput: They do not have the plan's two arms, or nobody else's traffic.
            Unavailable: The API server does not answer, or refuses.
        """
        self._http = self._get(*_GATEWAY, "httproutes", self._plan.route)
        self._grpc = self._get(*_GATEWAY, "grpcroutes", self._plan.route)
        kept = self._http["metadata"].get("annotations", {}).get(ANNOTATION)
        state = RolloutState.parse(kept) if kept else None
        return Routes(self._weights(self._http), self._weights(self._grpc), state)

    def readiness(self, arm: str) -> Verdict:
        """Says whether the InferenceService or RayService of an arm is ready as it is now.

        Raises:
            Unavailable: The API server does not answer, or refuses.
        """
        name = self._plan.servers_of(arm)
        group, version, plural = _HOSTS[self._host(self._http)]
        try:
            found = self._get(group, version, plural, name)
        except NotFound as error:
            return Verdict(False, str(error))
        status = found.get("status", {})
        generation = found["metadata"]["generation"]
        if status.get("observedGeneration", generation) < generation:
            return Verdict(False, f"{plural}/{name} was changed and its status is not yet of that")
        for condition in status.get("conditions", []):
            if condition["type"] == "Ready":
                why = condition.get("message") or condition.get("reason") or ""
                return Verdict(condition["status"] == "True", f"{plural}/{name}: {why or 'ready'}")
        return Verdict(False, f"{plural}/{name} says nothing of being ready")

    def write_http(self, state: RolloutState, weights: Weights | None) -> None:
        """Patches state and weights at once.

        Raises:
            Conflict: The route was changed since it was read.
            Unavailable: The API server does not answer, or refuses.
        """
        annotations = {ANNOTATION: state.model_dump_json()}
        self._http = self._patch("httproutes", self._http, weights, annotations)

    def write_grpc(self, weights: Weights) -> None:
        """Patches weights.

        Raises:
            Conflict: The route was changed since it was read.
            Unavailable: The API server does not answer, or refuses.
        """
        self._grpc = self._patch("grpcroutes", self._grpc, weights, {})

    def tell(self, state: RolloutState) -> None:
        """Makes an Event of a state's last change; its name is the change's, so it is made once."""
        if not state.transition or state.transition == self._told:
            return
        route = self._http["metadata"]
        name = f"{route['name']}.{route['uid'][:8]}.{state.transition}"
        at = datetime.fromtimestamp(max(state.since_ms, state.held_since_ms) / 1000, UTC)
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._namespace},
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Normal" if state.reason in ("CanaryStep", "Promoted") else "Warning",
            "reason": state.reason,
            "action": state.reason,
            "note": state.message[:1024],
            "regarding": {
                "apiVersion": "/".join(_GATEWAY),
                "kind": "HTTPRoute",
                "name": route["name"],
                "namespace": self._namespace,
                "uid": route["uid"],
            },
            "reportingController": _OWNER,
            "reportingInstance": _OWNER,
        }
        # If it is there, another controller has told it, or this one before it was killed.
        with suppress(Conflict):
            self._call(
                self._api.create_namespaced_custom_object,
                *("events.k8s.io", "v1", self._namespace, "events", event),
            )
        self._told = state.transition

    def _weights(self, route: Object) -> Weights:
        """Reads the weights of the plan's arms in the rule that divides traffic.

        Source:
            Gateway API, BackendRef.weight: "If unspecified, weight defaults to 1."
        """
        _, backends = self._shared_rule(route)
        weights = {one["name"]: int(one.get("weight", 1)) for one in backends}
        baseline, canary = (self._service(route, arm) for arm in self._arms)
        others = {name for name in set(weights) - {baseline, canary} if weights[name]}
        if others:
            raise InvalidInput(
                f"{route['kind']} {self._plan.route} sends traffic to {', '.join(sorted(others))}, "
                "which the plan does not know; give it weight 0"
            )
        return (weights[baseline], weights[canary])

    @property
    def _arms(self) -> tuple[str, str]:
        return (self._plan.baseline, self._plan.canary)

    def _service(self, route: Object, arm: str) -> str:
        return self._plan.servers_of(arm) + self._host(route)

    def _host(self, route: Object) -> str:
        """The end of the names of the arms' Services: it tells what makes them."""
        names = {one["name"] for rule in route["spec"]["rules"] for one in _backends(rule)}
        for end in _HOSTS:
            if {self._plan.servers_of(arm) + end for arm in self._arms} <= names:
                return end
        raise InvalidInput(
            f"{route['kind']} {self._plan.route} leads to {', '.join(sorted(names))}; the plan's "
            f"arms are {' and '.join(self._arms)}: name two arms of serving.arms"
        )

    def _shared_rule(self, route: Object) -> tuple[int, list[Object]]:
        """Finds the one rule with both arms behind it; the others match an arm's header."""
        wanted = {self._service(route, arm) for arm in self._arms}
        found = [
            (place, _backends(rule))
            for place, rule in enumerate(route["spec"]["rules"])
            if wanted <= {one["name"] for one in _backends(rule)}
        ]
        if len(found) != 1:
            raise InvalidInput(
                f"{route['kind']} {self._plan.route} has {len(found)} rules with both arms "
                f"({', '.join(sorted(wanted))}); one is needed"
            )
        return found[0]

    def _patch(
        self, plural: str, route: Object, weights: Weights | None, annotations: dict[str, str]
    ) -> Object:
        """Patches a route if it still is as it was read, and returns it as it is then."""
        metadata = {"resourceVersion": route["metadata"]["resourceVersion"]}
        body: Object = {"metadata": {**metadata, "annotations": annotations}}
        if weights is not None:
            rules = copy.deepcopy(route["spec"]["rules"])
            given = dict(
                zip((self._service(route, arm) for arm in self._arms), weights, strict=True)
            )
            for backend in _backends(rules[self._shared_rule(route)[0]]):
                backend["weight"] = given.get(backend["name"], backend.get("weight", 1))
            body["spec"] = {"rules": rules}
        return self._call(
            self._api.patch_namespaced_custom_object,
            *(*_GATEWAY, self._namespace, plural, self._plan.route, body),
            field_manager=_OWNER,
            _content_type="application/merge-patch+json",
        )

    def _get(self, group: str, version: str, plural: str, name: str) -> Object:
        return self._call(
            self._api.get_namespaced_custom_object, group, version, self._namespace, plural, name
        )

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Object:
        """Calls the API server; says what went wrong in our own errors."""
        what = "/".join(str(one) for one in arguments if isinstance(one, str))
        try:
            answer: Object = function(*arguments, **options, _request_timeout=_TIMEOUT_S)
        except ApiException as error:
            if error.status == 404:
                raise NotFound(f"{what} is not there; is the release's name right?") from error
            if error.status == 409:
                raise Conflict(f"{what} was changed meanwhile") from error
            raise Unavailable(
                f"the API server refused {what}: {error.status} {error.reason}"
            ) from error
        except HTTPError as error:
            raise Unavailable(f"the API server does not answer: {error}") from error
        return answer


def _backends(rule: Object) -> list[Object]:
    backends: list[Object] = rule.get("backendRefs", [])
    return backends
