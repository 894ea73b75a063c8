"""What the base installation leaves out, and what to install when it is needed.

A verifier needs neither Ray nor onnxruntime nor boto3, so the package depends on none of them
(docs/adr/0011). Whoever uses what does is told which extra brings it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from zkml_ray.errors import ConfigError

EXTRA_OF: Final = {
    "ray": "prove",
    "onnxruntime": "prove",
    "boto3": "s3",
    "botocore": "s3",
    "jinja2": "report",
    "vl_convert": "report",
}
"""Import name -> the extra of this package that brings it."""


@contextmanager
def named_if_missing() -> Iterator[None]:
    """Turn the failed import of an extra's package into an error that says what to install.

    Raises:
        ConfigError: A package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise ConfigError(
            f"{package} is not installed, and this needs it: pip install "
            f"'zkml-ray[{EXTRA_OF[package]}]'"
        ) from None
