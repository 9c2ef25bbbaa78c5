"""The policy snapshot: all that a router needs to decide locally, as an immutable value.

Tensors (float32), in the numbering of `steersman.layout`:

======================  =================  ======================================================================
name                    shape              what
======================  =================  ======================================================================
``weights.quality``     (D,)               posterior mean of the quality head, in the metric's unit
``weights.cost``        (D,)               the cost head's, in millionths of a US dollar
``weights.latency``     (D,)               the latency head's, in microseconds
``weights.failures``    (D,)               the failures head's, in spans
``covariance.quality``  (A (A + 1) / 2,)   lower triangle, row by row, of the quality head's posterior covariance of
                                           the A = D - d parameters that differ between arms (noise variance
                                           included); those shared by all arms cancel in every comparison
``weights.tool_calls``  (D,)               only under a ceiling on tool calls: what is expected of them, in calls
``exploration.second``  (K,)               of maillard: weights of the second look at the arms (`steersman.exploration`); without
                                           it there is none
``ceilings.square``     (1 + T, 5, 2)      only under a steady ceiling: weight and centre of the charge for the square of what is used,
                                           of every request and of those of the T tenants, by component: the four heads,
                                           then tool calls (`steersman.squares`)
======================  =================  ======================================================================

With the tensors of `steersman.encoder` beside them, all this is about its z in the place of x.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from .arms import ArmSpace
from .encoder import has_encoder, latent_features, problem_of
from .errors import SnapshotError
from .exploration import KINDS as EXPLORATIONS
from .features import Categorical, FeatureSpec
from .layout import Layout, make_layout
from .squares import SQUARES, Near, listed

HEADS = ("quality", "cost", "latency", "failures")
STAGES = ("UNKNOWN", "SHADOW", "CANARY", "LIVE", "FROZEN", "RETIRED")
COVARIANCE = "covariance.quality"
TOOL_CALLS = "tool_calls"
TOOL_WEIGHTS = "weights.tool_calls"
SECOND_LOOK = "exploration.second"
CHARGED = (*HEADS, TOOL_CALLS)
"""What ceilings may charge for, in the order of the tensor ``ceilings.square``."""

MAX_NUMBER = 1e18
"""Largest number in a tensor: beyond it products overflow, and no weight of a real policy comes near."""

_HASH = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class Term:
    """One term of the utility: weight * component / scale, the weight's sign included."""

    component: str
    weight: float
    scale: float


@dataclass(frozen=True)
class Multiplier:
    """Price of a ceiling: the utility loses value * component / scale (the scale is that of the component's term, 1 of tool calls).

    `tenant` is the value of the tenant feature for which it counts, empty for every request.
    """

    component: str
    value: float
    tenant: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether readers of before there were others know of it."""
        return not self.tenant and self.component != TOOL_CALLS


@dataclass(frozen=True)
class Source:
    """How far one source partition has been applied."""

    partition: int
    offset: int
    seq: int


@dataclass(frozen=True, eq=False)
class PolicySnapshot:
    """One version of a policy; the fields are those of ``policy_snapshot.avsc``, read into our own types.

    Times are integer microseconds since 1970-01-01 UTC. `tensors` maps names to read-only float32 arrays (see the
    module). A snapshot checks itself when it is made.

    Raises
    ------
    SnapshotError
        When a tensor is missing, misshapen or not finite, or any field is out of its range.
    """

    tenant: str
    policy: str
    epoch: int
    version: int
    arms: ArmSpace
    features: FeatureSpec
    baseline: str
    tensors: Mapping[str, NDArray[np.float32]]
    objective: tuple[Term, ...]
    reward_spec: str
    created_at: int
    learner: str = "linear"
    exploration: str = "maillard"
    exploration_scale: float = 0.25
    floor: float = 0.02
    multipliers: tuple[Multiplier, ...] = ()
    stage: str = "LIVE"
    canary_share: float = 1.0
    applied_n: int = 0
    applied_hash: int = 0
    applied_sources: tuple[Source, ...] = ()
    not_after: int | None = None
    signature: bytes = b""
    revision: int = 0
    inherited: str = ""
    learner_report: str = ""
    switch_cost: float | None = None
    acts: int = 0
    pinned: str = ""
    tenant_feature: str = ""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise SnapshotError(f"policy snapshot {self.tenant}/{self.policy} v{self.version}: {problem}")
        frozen = {}
        for name, tensor in self.tensors.items():
            view = tensor.view()
            view.setflags(write=False)
            frozen[name] = view
        object.__setattr__(self, "tensors", MappingProxyType(frozen))

    @property
    def key(self) -> str:
        """``tenant/policy``, the record key on the policy topic."""
        return f"{self.tenant}/{self.policy}"

    @property
    def layout(self) -> Layout:
        """Numbering of the heads' parameters: over z where there is an encoder, over x where there is none."""
        bias = self.tensors.get("encoder.1.bias")
        return make_layout(self.arms, self.features if bias is None else latent_features(bias.size))

    @property
    def tenants(self) -> tuple[str, ...]:
        """Values of the tenant feature; none where there is no such categorical feature."""
        for one in self.features.features:
            if isinstance(one, Categorical) and one.name == self.tenant_feature:
                return one.values
        return ()

    @property
    def squares(self) -> list[Near]:
        """What is charged for the square of use; nothing without a steady ceiling."""
        tensor = self.tensors.get(SQUARES)
        return [] if tensor is None else listed(tensor, CHARGED, self.tenants)

    def tenant_of(self, x: Sequence[float]) -> str:
        """Whose request an encoded context (d,) is about, by the tenant feature; empty for nobody that it lists."""
        tenants = self.tenants
        at = self.features.column(self.tenant_feature) if tenants else 0
        return next((tenant for i, tenant in enumerate(tenants) if x[at + i] > 0.0), "")

    def _problem(self) -> str:
        if self.epoch < 0 or self.version < 0 or self.applied_n < 0 or self.created_at < 0:
            return "epoch, version, applied_n and created_at must not be negative"
        if self.stage not in STAGES:
            return f"unknown stage {self.stage!r}"
        if self.exploration not in EXPLORATIONS:
            return f"unknown exploration {self.exploration!r}; this version knows {', '.join(EXPLORATIONS)}"
        if not 0.0 <= self.canary_share <= 1.0 or not 0.0 <= self.floor <= 1.0:
            return "canary_share and floor must be within 0..1"
        if not (math.isfinite(self.exploration_scale) and self.exploration_scale >= 0):
            return "exploration_scale must be finite and not negative"
        if self.switch_cost is not None and not (math.isfinite(self.switch_cost) and self.switch_cost >= 0):
            return "switch_cost must be finite and not negative"
        if self.baseline not in self.arms.labels:
            return f"the baseline {self.baseline!r} is not one of the arms"
        if not _HASH.match(self.reward_spec):
            return "reward_spec must be 16 hex digits"
        components = [term.component for term in self.objective]
        if len(set(components)) != len(components) or not set(components) <= set(HEADS):
            return f"the objective's components must be distinct and among {', '.join(HEADS)}"
        if not all(math.isfinite(t.weight) and math.isfinite(t.scale) and t.scale > 0 for t in self.objective):
            return "the objective's weights must be finite and its scales above 0"
        limited = {*components, TOOL_CALLS} if TOOL_WEIGHTS in self.tensors else components
        if any(m.component not in limited for m in self.multipliers):
            return "a multiplier limits a component that the objective does not list"
        if not all(math.isfinite(m.value) and m.value >= 0 for m in self.multipliers):
            return "multipliers must be finite and not negative"
        tenants = {m.tenant for m in self.multipliers if m.tenant}
        if not tenants <= set(self.tenants):
            return f"a multiplier is of a tenant that the feature {self.tenant_feature!r} does not list"
        if len({s.partition for s in self.applied_sources}) != len(self.applied_sources):
            return "applied_sources lists a partition twice"
        if has_encoder(self.tensors) and (problem := problem_of(self.tensors, self.features.dim)):
            return problem
        layout = self.layout
        shapes: dict[str, tuple[int, ...]] = {f"weights.{head}": (layout.size,) for head in HEADS}
        shapes[COVARIANCE] = (layout.arm_size * (layout.arm_size + 1) // 2,)
        if TOOL_WEIGHTS in self.tensors:
            shapes[TOOL_WEIGHTS] = (layout.size,)
        if SECOND_LOOK in self.tensors:
            shapes[SECOND_LOOK] = (layout.n_arms,)
            if not (self.tensors[SECOND_LOOK] >= 0.0).all():
                return f"tensor {SECOND_LOOK!r} must not be negative"
        if SQUARES in self.tensors:
            shapes[SQUARES] = (1 + len(self.tenants), len(CHARGED), 2)
        for name, shape in shapes.items():
            tensor = self.tensors.get(name)
            if tensor is None:
                return f"tensor {name!r} is missing"
            if tensor.dtype != np.float32 or tensor.shape != shape:
                return f"tensor {name!r} must be float32 of shape {shape}, not {tensor.dtype} {tensor.shape}"
            if not (np.abs(tensor) <= MAX_NUMBER).all():
                return f"tensor {name!r} is not finite, or holds numbers beyond {MAX_NUMBER:g}"
        if SQUARES in self.tensors and (self.tensors[SQUARES][:, :, 0] < 0.0).any():
            return f"weights in tensor {SQUARES!r} must not be negative"
        return ""

    def to_record(self) -> dict[str, Any]:
        """The record of ``policy_snapshot.avsc``, ready to encode."""
        return {
            "tenant": self.tenant,
            "policy": self.policy,
            "epoch": self.epoch,
            "version": self.version,
            "stage": self.stage,
            "canary_share": self.canary_share,
            **self.arms.to_record(),
            "baseline": self.baseline,
            "feature_spec": self.features.model_dump_json(),
            "learner": self.learner,
            "tensors": [
                {"name": name, "shape": list(tensor.shape), "data": tensor.astype("<f4").tobytes()}
                for name, tensor in self.tensors.items()
            ],
            "objective": [{"component": t.component, "weight": t.weight, "scale": t.scale} for t in self.objective],
            "multipliers": [{"component": m.component, "value": m.value} for m in self.multipliers if m.is_plain],
            "exploration": self.exploration,
            "exploration_scale": self.exploration_scale,
            "floor": self.floor,
            "reward_spec": self.reward_spec,
            "applied_n": self.applied_n,
            "applied_hash": self.applied_hash,
            "applied_sources": [
                {"partition": s.partition, "offset": s.offset, "seq": s.seq} for s in self.applied_sources
            ],
            "created_at": self.created_at,
            "not_after": self.not_after,
            "signature": self.signature,
            "revision": self.revision,
            "inherited": self.inherited,
            "learner_report": self.learner_report,
            "switch_cost": self.switch_cost,
            "acts": self.acts,
            "pinned": self.pinned,
            "tenant_feature": self.tenant_feature,
            "tenant_multipliers": [
                {"tenant": m.tenant, "component": m.component, "value": m.value}
                for m in self.multipliers
                if not m.is_plain
            ],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PolicySnapshot:
        """Read a decoded record and validate all of it; SnapshotError names what is wrong."""
        try:
            tensors: dict[str, NDArray[np.float32]] = {}
            for tensor in record["tensors"]:
                shape = tuple(int(length) for length in tensor["shape"])
                if min(shape, default=0) < 0 or math.prod(shape) * 4 != len(tensor["data"]):
                    raise SnapshotError(f"tensor {tensor['name']!r}: {len(tensor['data'])} bytes are not {shape}")
                values = np.frombuffer(tensor["data"], dtype="<f4").astype(np.float32).reshape(shape)
                if tensor["name"] in tensors:
                    raise SnapshotError(f"tensor {tensor['name']!r} occurs twice")
                tensors[tensor["name"]] = values
            return cls(
                tenant=record["tenant"],
                policy=record["policy"],
                epoch=record["epoch"],
                version=record["version"],
                arms=ArmSpace.from_record(record),
                features=FeatureSpec.model_validate_json(record["feature_spec"]),
                baseline=record["baseline"],
                tensors=tensors,
                objective=tuple(Term(t["component"], t["weight"], t["scale"]) for t in record["objective"]),
                reward_spec=record["reward_spec"],
                created_at=record["created_at"],
                learner=record["learner"],
                exploration=record["exploration"],
                exploration_scale=record["exploration_scale"],
                floor=record["floor"],
                multipliers=(
                    *(Multiplier(m["component"], m["value"]) for m in record["multipliers"]),
                    *(Multiplier(m["component"], m["value"], m["tenant"]) for m in record["tenant_multipliers"]),
                ),
                stage=record["stage"],
                canary_share=record["canary_share"],
                applied_n=record["applied_n"],
                applied_hash=record["applied_hash"],
                applied_sources=tuple(Source(s["partition"], s["offset"], s["seq"]) for s in record["applied_sources"]),
                not_after=record["not_after"],
                signature=record["signature"],
                revision=record["revision"],
                inherited=record["inherited"],
                learner_report=record["learner_report"],
                switch_cost=record["switch_cost"],
                acts=record["acts"],
                pinned=record["pinned"],
                tenant_feature=record["tenant_feature"],
            )
        except (ValidationError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise SnapshotError(f"policy snapshot cannot be read: {type(e).__name__}: {e}") from e
