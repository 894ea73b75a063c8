"""How the candidates of a settled grid share packed equations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.hinted.forms import NotHintedError
from zkml_ray.chunking.hinted.grid import Ints
from zkml_ray.chunking.hinted.rounding import Quantised


class Layout:
    """How a settled grid's candidates are dealt out to units of p that share an equation.

    The axes [t, A, B, p]: candidates of a window, blocks of windows, blocks of channels, and the
    slots of a unit. Over channels A is the windows and B p the channels; over groups A p is the
    windows and B the channels.
    """

    def __init__(self, groups: Ints, channels: int, width: int, bits: int, *, over_channels: bool):
        self.over_channels = over_channels
        self.bits = bits
        self._groups = groups
        self._channels = channels
        count, t = groups.shape
        packed = channels if over_channels else count
        blocks = -(-packed // width)
        self.width = -(-packed // blocks)
        a, b = (count, blocks) if over_channels else (blocks, channels)
        self.shape = (t, a, b, self.width)
        if over_channels:
            window = np.broadcast_to(np.arange(a)[:, None, None], (a, b, self.width))
            channel = np.broadcast_to(np.arange(b * self.width).reshape(b, -1), (a, b, self.width))
        else:
            slots = np.arange(a * self.width).reshape(a, 1, self.width)
            window = np.broadcast_to(slots, (a, b, self.width))
            channel = np.broadcast_to(np.arange(b)[None, :, None], (a, b, self.width))
        self.valid = (window < count) & (channel < channels)
        self._window = np.where(self.valid, window, 0)
        self._channel = np.where(self.valid, channel, 0)

    @classmethod
    def choose(
        cls, form: Quantised, groups: Ints, width: int, bits: int, *, only_channels: bool
    ) -> Layout:
        """The cheaper of packing over channels and over groups.

        Args:
            form: What is settled.
            groups: Shape [windows, t]: the groups that each result is the maximum of.
            width: Most candidates of a unit.
            bits: Bits between them.
            only_channels: Pack over channels whatever it costs.
        """
        if width < 1:
            raise NotHintedError("sums are too large for a field element")
        ways = (True,) if form.pairs or only_channels else (True, False)
        channels = form.form.channels
        options = [cls(groups, channels, width, bits, over_channels=over) for over in ways]
        return min(options, key=lambda layout: layout.cost(form))

    @property
    def units(self) -> int:
        """Packed equations."""
        t, a, b, _ = self.shape
        return int(t * a * b)

    def cost(self, form: Quantised) -> int:
        """Cells of the terms, roughly."""
        t, a, _, p = self.shape
        total = 4 * self.units
        for dense, weights in form.dense:
            depth = dense.index.shape[1]
            pack = weights.size if self.over_channels else t * a * p * depth
            total += self.units * depth + (pack if p > 1 else 0)
        return total

    def rows(self, index: Ints) -> Ints:
        """A dense term's index: [t A, K] over channels, [t A, p, K] over groups."""
        t, a, _, p = self.shape
        if self.over_channels:
            shared: Ints = index[self._groups.T].reshape(t * a, -1)
            return shared
        window = self._window[:, 0]  # [A, p]
        taken: Ints = index[self._groups[window]]  # [A, p, t, K]
        taken = np.where(self.valid[:, 0, :, None, None], taken, -1)
        found: Ints = taken.transpose(2, 0, 1, 3).reshape(t * a, p, -1)
        return found

    def paired(self, index: Ints) -> Ints:
        """The right side of a pair: [batch, K, B, p], -1 where there is no channel."""
        _, _, b, p = self.shape
        batch, depth, channels = index.shape
        padded = np.full((batch, depth, b * p), -1, dtype=np.int64)
        padded[:, :, :channels] = index
        found: Ints = padded.reshape(batch, depth, b, p)
        return found

    def columns(self, weights: Ints) -> Ints:
        """A dense term's weights over channels: [K, B, p], zero where there is no channel."""
        _, _, b, p = self.shape
        padded = np.zeros((len(weights), b * p), dtype=np.int64)
        padded[:, : self._channels] = weights
        found: Ints = padded.reshape(len(weights), b, p)
        return found

    def slots(self, index: Ints) -> Ints:
        """A local term's index: [units, p, K], -1 where there is no element."""
        t, a, b, p = self.shape
        taken = index[self._groups[self._window], self._channel[..., None]]  # [A, B, p, t, K]
        taken = np.where(self.valid[..., None, None], taken, -1)
        found: Ints = taken.transpose(3, 0, 1, 2, 4).reshape(t * a * b, p, -1)
        return found

    def per_slot(self, weights: Ints) -> Ints:
        """A local term's weights: [B, p, K], or [1, p, K] where channels do not differ."""
        p = self.width
        if (weights == weights[:1]).all():
            shape = (1, p, weights.shape[1])
            shared: Ints = np.array(np.broadcast_to(weights[:1][:, None], shape))
            return shared
        different: Ints = weights[self._channel[0]]
        return different

    def arranged_constant(self, constant: Ints) -> Ints:
        """Constants, zero where there is no element: [t or 1, A or 1, B, p]."""
        taken = constant[np.zeros_like(self._groups) if len(constant) == 1 else self._groups]
        found = taken[self._window, :, self._channel]  # [A, B, p, t]
        arranged: Ints = np.where(self.valid[..., None], found, 0).transpose(3, 0, 1, 2)
        for axis in (0, 1):
            first = arranged.take([0], axis=axis)
            if (arranged == first).all():
                arranged = first
        return arranged

    def where(self, sites: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Of sites [windows, channels], which slots they are: [A, B, p]."""
        found: npt.NDArray[np.bool_] = sites[self._window, self._channel] & self.valid
        return found

    def positions(self, taken: npt.NDArray[np.bool_]) -> Ints:
        """Per site w * channels + c, its place in a wire of the slots that are taken; or -1."""
        found = np.full(len(self._groups) * self._channels, -1, dtype=np.int64)
        sites = (self._window * self._channels + self._channel)[taken]
        found[sites] = np.arange(len(sites))
        return found
