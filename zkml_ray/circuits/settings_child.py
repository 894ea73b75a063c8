"""One call of `ezkl.gen_settings`, as a process of its own (docs/adr/0008).

Run by `backend` as a file, not imported: rayon fixes its number of threads at its first use in a
process, and settings must be derived on one. That is set here, not in an environment copied for
this process: the thread that starts Ray changes the environment meanwhile.

Standard input: one JSON object with `path` (sys.path), `model`, `out` and `fields` (ezkl's run
arguments). Prints nothing when the settings were written, ezkl's reason when they were not.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Read the request and make the call."""
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    os.environ["RAYON_NUM_THREADS"] = "1"
    import ezkl

    args = ezkl.PyRunArgs()
    for name, value in request["fields"].items():
        if name == "variables":
            setattr(args, name, [tuple(pair) for pair in value])
        else:
            setattr(args, name, tuple(value) if name == "lookup_range" else value)
    try:
        ezkl.gen_settings(request["model"], request["out"], args)
    except BaseException as error:  # a Rust panic is no Exception
        print(str(error) or type(error).__name__)


if __name__ == "__main__":
    main()
