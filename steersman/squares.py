"""What a snapshot charges for the square of use: it keeps decisions near a ceiling one by one, where a price keeps them there in the mean.

The tensor ``ceilings.square`` holds a weight w >= 0 and a centre c for each component: of every request (row 0), and of the requests of
each tenant (the rows after it, in the order of the tenant feature's values). An arm that is expected to use y of a component loses
w (y - c)^2 of its utility. With the linear prices of ceilings that is a quadratic penalty on what a decision uses
(an augmented Lagrangian: M. R. Hestenes, "Multiplier and Gradient Methods", J. Optimization Theory and Applications 4, 1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

SQUARES = "ceilings.square"
"""Name of the tensor, (1 + tenants, components, 2); without it nothing is charged."""


class Near(NamedTuple):
    """What one pair of numbers in the tensor says.

    Attributes
    ----------
    tenant : str
        Whose requests are charged, empty for all.
    component : str
        What is charged for.
    weight : float
        Utility lost per squared unit of the component.
    centre : float
        Where nothing is lost; unit: the component's.
    """

    tenant: str
    component: str
    weight: float
    centre: float


def listed(tensor: NDArray[np.floating], components: Sequence[str], tenants: Sequence[str]) -> list[Near]:
    """What the tensor charges for, (1 + T, C, 2), by its components and tenants."""
    return [
        Near(tenant, component, float(weight), float(centre))
        for tenant, row in zip(("", *tenants), tensor, strict=True)
        for component, (weight, centre) in zip(components, row, strict=True)
        if weight > 0.0
    ]


class Squares:
    """The charges of a snapshot.

    Parameters
    ----------
    tensor : float array (1 + T, C, 2)
        See the module.
    rows : sequence of float64 array (K, d)
        What is expected of the arms per entry of x, of each of the C components; None where the snapshot does not know.
    first : int
        Column of x of the first tenant.
    """

    def __init__(self, tensor: NDArray[np.floating], rows: Sequence[Float | None], first: int = 0) -> None:
        of_all, *of_tenants = (
            [
                (known, float(weight), float(centre))
                for known, (weight, centre) in zip(rows, one, strict=True)
                if weight > 0.0 and known is not None
            ]
            for one in tensor
        )
        self._of_all = of_all
        self._of_tenants = [of_all + own for own in of_tenants]
        self._tenants = slice(first, first + len(of_tenants))

    def charge(self, x: NDArray[np.floating], z: Float) -> Float | float:
        """What each arm loses, float64 (K,), in the context x as it was encoded and z as the heads see it; 0 for nothing."""
        found = self._of_all
        if self._of_tenants:
            columns = x[self._tenants]
            at = int(columns.argmax())
            if columns[at] > 0.0:
                found = self._of_tenants[at]
        charge: Float | float = 0.0
        for rows, weight, centre in found:
            off = rows.dot(z)
            off -= centre
            charge = charge + weight * off * off
        return charge
