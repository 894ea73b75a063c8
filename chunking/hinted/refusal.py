"""How lowering ends where there is no hinted form: always in one way, never in another.

An operator refuses what it has no exact form for. Whatever else goes wrong inside lowering is a
fault of ours, but no reason to end a run whose circuits can be native: it is refused as well, and
says what happened. A planner then goes on without hinted circuits; a verifier, whose plan must be
derivable, refuses the plan (`verifying.trust`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx

from zkml_ray.errors import ChunkingError


class NotHintedError(ChunkingError):
    """These operators have no hinted form.

    Attributes:
        node: Name of the node that has none; empty where it is no single node.
        operator: Its operator.
        reason: Why; empty where no node of this operator has one.
        range_bits: With so many it has one; 0 where that is not why.
        by_rows: It may have one in a circuit of other rows.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str = "",
        operator: str = "",
        reason: str = "",
        range_bits: int = 0,
        by_rows: bool = False,
    ) -> None:
        super().__init__(message)
        self.node = node
        self.operator = operator
        self.reason = reason
        self.range_bits = range_bits
        self.by_rows = by_rows


@contextmanager
def refusing(node: onnx.NodeProto | None = None) -> Iterator[None]:
    """Turn every failure of lowering into a NotHintedError; of arithmetic on numbers, too.

    Args:
        node: The node that is lowered, to be named; None: several.

    Raises:
        NotHintedError: Lowering failed.
    """
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            yield
    except NotHintedError as error:
        if error.node or node is None:
            raise
        named = _named(node, error.reason or error.message, error.range_bits)
        named.by_rows = error.by_rows
        raise named from None
    except ChunkingError as error:
        if node is None:
            raise
        raise _named(node, error.message) from None
    except MemoryError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        reason = f"lowering failed, which is a bug ({type(error).__name__}: {line})"
        if node is None:
            raise NotHintedError(reason) from error
        raise _named(node, reason) from error


def _named(node: onnx.NodeProto, reason: str, range_bits: int = 0) -> NotHintedError:
    name = node.name or next(iter(node.output), "")
    what = f"{node.op_type} (node {name!r}) has no hinted form"
    return NotHintedError(
        f"{what}: {reason}" if reason else what,
        node=name,
        operator=node.op_type,
        reason=reason,
        range_bits=range_bits,
    )
