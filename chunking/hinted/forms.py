"""Linear maps that are not yet rounded.

A `Form` is a grid of `groups` x `channels` sums of products of constants with wires' elements: a
convolution's output positions x its channels, a dense layer's rows x its outputs. A `Pending` is a
form with what is still to be done to it at once: a maximum over windows, a ReLU, the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.hinted.grid import Ints, View, Wire
from zkml_ray.chunking.hinted.refusal import NotHintedError as NotHintedError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Sums over shared inputs: out[g, c] += sum_k wire[index[g, k]] weights[k, c].

    Attributes:
        wire: What is read.
        index: Shape [groups, K].
        weights: Shape [K, channels].
    """

    wire: Wire
    index: Ints
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Sums over inputs of their own: out[g, c] += sum_k wire[index[g, c, k]] weights[c, k].

    Attributes:
        wire: What is read.
        index: Shape [groups, channels, K].
        weights: Shape [channels, K].
    """

    wire: Wire
    index: Ints
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFactor:
    """A number of its own for every row of a grid, which multiplies its sums.

    Attributes:
        tensor: The numbers, one a row.
        most: The largest in any proof; none is negative.
    """

    tensor: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Products of two activations: out[b m, c] += factor sum_k left[b, m, k] right[b, k, c].

    Attributes:
        left: What is read.
        left_index: Shape [batch, M, K]; the grid's groups are batch * M.
        right: What is read.
        right_index: Shape [batch, K, channels].
        factor: A constant.
        rows: What the sums of every group are multiplied by as well; the left side's resolution is
            that of the product.
    """

    left: Wire
    left_index: Ints
    right: Wire
    right_index: Ints
    factor: float = 1.0
    rows: RowFactor | None = None

    @property
    def most(self) -> int:
        """Largest absolute value of a sum in any proof, the constant left out."""
        depth = int(self.left_index.shape[2])
        scaled = self.rows.most if self.rows is not None else 1
        return depth * self.left.magnitude * self.right.magnitude * scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A grid of sums.

    Attributes:
        groups: Rows of the grid.
        channels: Columns.
        dense: Terms.
        local: Terms.
        pairs: Terms.
        bias: Shape [groups, channels], or [1, channels] for all groups.
    """

    groups: int
    channels: int
    dense: tuple[Dense, ...] = ()
    local: tuple[Local, ...] = ()
    pairs: tuple[Pair, ...] = ()
    bias: Floats

    @property
    def is_of_values(self) -> bool:
        """Whether its sums are multiples of single values: rounding one again costs nothing."""
        single = len(self.local) == 1 and self.local[0].weights.shape[1] == 1
        return single and not self.dense and not self.pairs

    def scaled(self, factor: float) -> Form:
        """The form times a constant."""
        return replace(
            self,
            dense=tuple(replace(t, weights=t.weights * factor) for t in self.dense),
            local=tuple(replace(t, weights=t.weights * factor) for t in self.local),
            pairs=tuple(replace(t, factor=t.factor * factor) for t in self.pairs),
            bias=self.bias * factor,
        )

    def scaled_by_channel(self, factors: Floats) -> Form:
        """The form, every channel times its own constant; a form without pairs."""
        if self.pairs:
            raise NotHintedError("a product of two tensors has one factor for all channels")
        return replace(
            self,
            dense=tuple(replace(t, weights=t.weights * factors) for t in self.dense),
            local=tuple(replace(t, weights=t.weights * factors[:, None]) for t in self.local),
            bias=self.bias * factors,
        )

    def plus(self, other: Form) -> Form:
        """The sum of two forms of one grid."""
        return replace(
            self,
            dense=self.dense + other.dense,
            local=self.local + other.local,
            pairs=self.pairs + other.pairs,
            bias=self.bias + other.bias,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A tensor that is a form, still to be rounded.

    Attributes:
        form: The form.
        sites: The tensor's shape; of every element, its site w * channels + c in the rounded grid.
        windows: Shape [outputs, elements]: the groups over which each output is the maximum.
        relu: Whether negative results become zero.
        source: Name of the tensor that this is a multiple of.
        multiple: Which multiple.
    """

    form: Form
    sites: Ints
    windows: Ints | None = None
    relu: bool = False
    source: str = ""
    multiple: float = 1.0

    @property
    def is_linear(self) -> bool:
        """Whether nothing but rounding is left to do."""
        return self.windows is None and not self.relu

    def read(self, view: View, factor: float) -> Form:
        """A view of the tensor's shape, times a constant, as a form of this grid."""
        form = self.form
        index = np.full(form.groups * form.channels, -1, dtype=np.int64)
        index[self.sites.ravel()] = view.index.ravel()
        return Form(
            groups=form.groups,
            channels=form.channels,
            local=(
                Local(
                    wire=view.wire,
                    index=index.reshape(form.groups, form.channels, 1),
                    weights=np.full((form.channels, 1), factor),
                ),
            ),
            bias=np.zeros((1, form.channels)),
        )

    def by_channel(self, values: Floats) -> Floats | None:
        """One value for each channel, if a constant of the tensor's shape has no others."""
        grid = self._grid(values)
        return grid[0] if (grid == grid[:1]).all() else None

    def _grid(self, values: Floats) -> Floats:
        form = self.form
        flat = np.zeros(form.groups * form.channels)
        flat[self.sites.ravel()] = values.ravel()
        return flat.reshape(form.groups, form.channels)

    def constant(self, values: Floats) -> Form:
        """A constant of the tensor's shape as a form of this grid."""
        form, grid = self.form, self._grid(values)
        if (grid == grid[:1]).all():
            grid = grid[:1]
        return Form(groups=form.groups, channels=form.channels, bias=grid)


def identity(view: View, factor: float = 1.0, *, axis: int = -1) -> Pending:
    """A view as a form, one of its dimensions as channels."""
    shape = view.shape or (1,)
    channels = shape[axis]
    last = np.moveaxis(np.empty(shape), axis, -1).shape
    groups = int(np.prod(last[:-1], dtype=np.int64))
    sites = np.moveaxis(np.arange(groups * channels, dtype=np.int64).reshape(last), -1, axis)
    sites = sites.reshape(view.shape)
    empty = Form(groups=groups, channels=channels, bias=np.zeros((1, channels)))
    blank = Pending(form=empty, sites=sites)
    return replace(blank, form=blank.read(view, factor))


def pooled(pending: Pending, windows: Ints, shape: Sequence[int]) -> Pending:
    """The maximum over windows of elements of a pending tensor.

    Args:
        pending: Not pooled yet.
        windows: Per output element (flat), the flat elements it is the maximum of, -1 for none.
        shape: The output's shape.

    Raises:
        NotHintedError: Windows overlap, are cut off, or differ from channel to channel.
    """
    form = pending.form
    if form.pairs:
        raise NotHintedError("a maximum of products of two tensors is not pooled as it stands")
    if pending.windows is not None or (windows < 0).any():
        raise NotHintedError("maxima of maxima, and padded ones, have no hinted form")
    sites = pending.sites.ravel()[windows]
    groups, channel = np.divmod(sites, form.channels)
    if (channel != channel[:, :1]).any():
        raise NotHintedError("a maximum over channels has no hinted form")
    kept, position = np.unique(groups, axis=0, return_inverse=True)
    if len(np.unique(kept)) != kept.size:
        raise NotHintedError("overlapping maxima have no hinted form")
    if len(kept) * form.channels != len(windows):
        raise NotHintedError("maxima that differ from channel to channel have no hinted form")
    found = position.reshape(-1) * form.channels + channel[:, 0]
    return replace(pending, windows=kept, sites=found.reshape(tuple(shape)))
