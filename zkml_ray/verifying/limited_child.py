"""The process that `verifying.limited` starts: the command `verify` under a limit of memory.

    python -m zkml_ray.verifying.limited_child BYTES ARGUMENTS

BYTES may be 0: no limit. On Linux the limit of data holds for all private memory that can be
written to, and leaves out what is only mapped (shared libraries, the SRS); processes that are
started from here have the same limit.
"""

from __future__ import annotations

import resource
import runpy
import sys

if __name__ == "__main__":
    max_bytes = int(sys.argv.pop(1))
    if max_bytes:
        kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
        resource.setrlimit(kind, (max_bytes, max_bytes))
    runpy.run_module("zkml_ray.verifier", run_name="__main__")
