"""The encoder of a neural-linear policy: from x to the few numbers z that its heads are linear in. numpy only.

A small network, z = (tanh(W1 tanh(W0 x + b0) + b1) - shift) * scale, float32 throughout, trained by `learners.neural` and
carried in the snapshot (C. Riquelme, G. Tucker, J. Snoek, "Deep Bayesian Bandits Showdown", ICLR 2018: NeuralLinear).
Its tensors, all float32, with d the length of x, n hidden units and h numbers z:

====================  ========  ==================================================
name                  shape     what
====================  ========  ==================================================
``encoder.0.weight``  (n, d)    W0
``encoder.0.bias``    (n,)      b0
``encoder.1.weight``  (h, n)    W1
``encoder.1.bias``    (h,)      b1
``encoder.shift``     (h,)      means over the rewards it was trained on
``encoder.scale``     (h,)      one over their deviations
====================  ========  ==================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .features import FeatureSpec, Numeric

PREFIX: Final = "encoder."
TENSORS: Final = tuple(PREFIX + name for name in ("0.weight", "0.bias", "1.weight", "1.bias", "shift", "scale"))
MAX_UNITS: Final = 512
"""Most units of a layer that are accepted."""

Tensors = Mapping[str, NDArray[np.float32]]


def has_encoder(tensors: Tensors) -> bool:
    """Whether a snapshot's tensors hold an encoder, or parts of one."""
    return any(name.startswith(PREFIX) for name in tensors)


def problem_of(tensors: Tensors, dim: int) -> str:
    """What is wrong with the encoder among a snapshot's tensors, for an x of length `dim`; empty when nothing is."""
    missing = [name for name in TENSORS if name not in tensors]
    if missing:
        return f"tensor {missing[0]!r} is missing"
    hidden, width = tensors["encoder.0.bias"].size, tensors["encoder.1.bias"].size
    if not (1 <= hidden <= MAX_UNITS and 1 <= width <= MAX_UNITS):
        return f"an encoder of {hidden} hidden units and {width} outputs; each must be within 1..{MAX_UNITS}"
    shapes = ((hidden, dim), (hidden,), (width, hidden), (width,), (width,), (width,))
    for name, shape in zip(TENSORS, shapes, strict=True):
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.shape != shape:
            return f"tensor {name!r} must be float32 of shape {shape}, not {tensor.dtype} {tensor.shape}"
        if not np.isfinite(tensor).all():
            return f"tensor {name!r} is not finite"
    return ""


@lru_cache(maxsize=16)
def latent_features(width: int) -> FeatureSpec:
    """What the heads of an encoder with `width` outputs take for features: as many numbers, and the constant."""
    return FeatureSpec(features=tuple(Numeric(name=f"z{i}") for i in range(width)))


class Encoder:
    """Encodes one x at a time. Immutable, so threads may share it.

    Parameters
    ----------
    tensors : mapping of str to float32 array
        Those of `TENSORS`; others are passed over.
    """

    def __init__(self, tensors: Tensors) -> None:
        first, first_bias, second, second_bias, shift, scale = (
            np.ascontiguousarray(tensors[name], dtype=np.float32) for name in TENSORS
        )
        self._first, self._first_bias = first, first_bias
        self._second, self._second_bias = second, second_bias
        self._shift, self._scale = shift, scale
        self.width: int = len(second_bias)

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Encode x (d,); returns z and a last entry 1, float64 (h + 1,): its entries are float32 numbers."""
        hidden = self._first.dot(x.astype(np.float32, copy=False))
        hidden += self._first_bias
        np.tanh(hidden, out=hidden)
        z = self._second.dot(hidden)
        z += self._second_bias
        np.tanh(z, out=z)
        z -= self._shift
        z *= self._scale
        out = np.empty(self.width + 1)
        out[:-1] = z
        out[-1] = 1.0
        return out
