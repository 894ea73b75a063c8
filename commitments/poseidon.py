"""The Poseidon hash that ezkl computes for `hashed` tensors.

The instance, so that others may reproduce it:

- field: BN254 scalar field; width t = 2, rate 1, capacity 1; S-box x^5; 8 full and 56 partial
  rounds (4 full, 56 partial, 4 full);
- round constants and MDS matrix: from the reference Grain LFSR, `generate_parameters_grain.sage
  1 0 254 2 8 56 r`, which are circomlib's for t = 2;
- sponge: halo2_gadgets' domain `VariableLength`. The state starts as [0, 2^64]: rate word first,
  capacity word last. Each element is *added* to the rate word, followed by one permutation. After
  the last, the rate word is the hash.

`VariableLength` is meant to append a one and then zeros up to a multiple of the rate, but it
emits k*rate - (length + 1) padding elements, which at rate 1 is none at all. So the length is
bound neither by padding nor by the capacity word. Lists of different lengths still absorb
different sequences of blocks, and one output element is squeezed, so a collision between two
non-empty lists is a collision of the sponge's capacity (about 2^127 work). Two consequences
remain, and callers must respect them:

- the empty list would hash like [0] (ezkl returns no hash for it); it is refused here;
- nothing in the hash says what was hashed. Domain separation is the caller's: `merkle` uses tags
  that no packed element can equal.

Sources: zkonduit/halo2 `halo2_gadgets/src/poseidon/primitives.rs` (`Sponge`, `VariableLength`);
ezkl `src/circuit/modules/poseidon/{spec,poseidon_params}.rs`; ePrint 2019/458, section 4.2.
`tests/vectors/` holds vectors made by an independent implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import ezkl

from zkml_ray.commitments.field import decode, encode
from zkml_ray.errors import FieldRangeError


def hash_elements(elements: Sequence[int]) -> int:
    """Hash a list of field elements.

    Args:
        elements: One or more integers, canonical or signed, in [-(r-1)/2, r).

    Returns:
        The hash, a canonical element in [0, r).

    Raises:
        FieldRangeError: The list is empty or an integer is not a field element.
    """
    if not elements:
        raise FieldRangeError("nothing to hash: an empty list would collide with [0]")
    return decode(ezkl.poseidon_hash([encode(element) for element in elements])[0])
