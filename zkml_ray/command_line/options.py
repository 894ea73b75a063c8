"""Options: each declared once, with those that go together in groups, and what they stand for.

A default stands where an option is taken, since commands differ in it; a group has its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Optional, TypedDict

import typer

from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError
from zkml_ray.stores import ArtifactStore, LocalStore, open_store
from zkml_ray.stores.layout import RunLayout

if TYPE_CHECKING:
    from zkml_ray.stages.comparison import MaxError
    from zkml_ray.stages.plan import PlanOptions
    from zkml_ray.stages.setup import StoreKeys

# Optional[...] and not "... | None": typer on Python 3.10.
Model = Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)]
RunArgument = Annotated[str, typer.Argument(help="Id of the run.", show_default=False)]
RunOrBundle = Annotated[
    str, typer.Argument(help="Id of the run, or path of its bundle (.zip).", show_default=False)
]
NewRun = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--run", help="Id of the run [default: a new one]."),
]
Input = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--input", "-i", help=".json (ezkl input_data), .npy or .npz [random]."),
]
InputsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--inputs",
        help="Prove many inputs, each in a run of its own: a folder of .json, .npy and .npz files, "
        "or a .npy or .npz file with inputs along an additional first axis. --run is what the "
        "runs' ids begin with.",
    ),
]
PrivateInput = Annotated[
    bool, typer.Option("--private-input", help="Prove without revealing the input.")
]
AllowLeakyNative = Annotated[
    bool,
    typer.Option(
        "--allow-leaky-native",
        help="Hide inputs behind native circuits all the same: their proofs let guesses be tested.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
StoreOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--store", help="Folder or URL [default: ZKML_RAY_STORE or ./zkml-ray-store]."),
]
Scale = Annotated[
    int,
    typer.Option(
        "--scale",
        help="Fixed-point bits after the point: of values, and of weights in native circuits.",
    ),
]
LayersPerChunk = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--layers-per-chunk", help="Weighted operators per chunk [default: cuts are searched]."
    ),
]
Memory = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--memory", help="Most memory of a worker, such as 2GiB or 900MiB [any]."),
]
TrustedModel = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--model", help="Trust root: your copy of the ONNX file."),
]
TrustedDigest = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--plan-digest", help="Trust root: digest of a plan someone re-built."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", help="Ray workers that prove.")]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--threads",
        help="Prover threads per worker [default: its share of the cores, and what others leave].",
    ),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--address", help="Ray cluster [default: RAY_ADDRESS or a private one]."),
]
StoreKeysOption = Annotated[
    str,
    typer.Option(
        "--store-keys",
        help="all: proving keys too, so that other machines need not make them; verifying; "
        "none: whoever verifies needs the model.",
    ),
]
MaxErrorOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--max-error",
        help="How far an output may be from onnxruntime's on the same input: a number, default (as "
        "far as rounding explains) or none (any). Beyond it a run stops before it is proved; a "
        "plan is refused beyond a number, and warns beyond the default [default, or as begun].",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run lies."""

    PANEL: ClassVar[str] = "Store"

    store: StoreOption = None
    project: Annotated[str, typer.Option("--project", help="Project in the store.")] = "default"

    def open(self) -> ArtifactStore:
        """Open the store."""
        return open_store(self.store or default_store_url())

    def existing(self) -> ArtifactStore:
        """Open a store that is to hold runs already.

        Raises:
            ConfigError: It is a folder that is not there.
        """
        opened = self.open()
        if isinstance(opened, LocalStore) and not opened.folder.is_dir():
            raise ConfigError(
                f"there is no store {opened.folder}: the first run makes it; name yours with "
                "--store, or ZKML_RAY_STORE"
            )
        return opened

    def as_options(self) -> str:
        """The same as options to paste, where they are not the default ones."""
        store = [] if self.store is None else ["--store", self.store]
        project = [] if self.project == "default" else ["--project", self.project]
        return shlex.join([*store, *project])

    def layout(self, run: str) -> RunLayout:
        """Keys of a run."""
        return RunLayout(self.project, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who works."""

    PANEL: ClassVar[str] = "Workers"

    workers: Workers = 2
    threads: Threads = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much is told."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The verdict alone.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All that is known.")] = False

    def checked(self) -> Detail:
        """The same.

        Raises:
            ConfigError: Both were asked for.
        """
        if self.quiet and self.verbose:
            raise ConfigError("--quiet and --verbose exclude each other")
        return self


class ProvingArguments(TypedDict):
    """What every function that proves takes (`zkml_ray.api`)."""

    store: str | None
    project: str
    workers: int
    threads: int | None
    store_keys: StoreKeys
    max_error: MaxError | None
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """Who proves, where, how exactly, and which keys stay in the store."""

    crew: Crew
    store_keys: StoreKeysOption = "verifying"
    max_error: MaxErrorOption = None
    place: Place
    address: Address = None

    def arguments(self) -> ProvingArguments:
        """The same, for the API.

        Raises:
            ConfigError: --store-keys or --max-error has no such value.
        """
        from zkml_ray.stages.setup import StoreKeys

        try:
            store_keys = StoreKeys(self.store_keys)
        except ValueError:
            raise ConfigError(
                f"--store-keys is all, verifying or none, not {self.store_keys}"
            ) from None
        return {
            "store": self.place.store,
            "project": self.place.project,
            "workers": self.crew.workers,
            "threads": self.crew.threads,
            "store_keys": store_keys,
            "max_error": max_error_option(self.max_error),
            "address": self.address,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a verifier trusts."""

    PANEL: ClassVar[str] = "Trust"

    model: TrustedModel = None
    plan_digest: TrustedDigest = None
    allow_insecure_srs: Annotated[
        bool,
        typer.Option("--allow-insecure-srs", help="Accept a generated SRS (its maker can forge)."),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOptions:
    """What every chunk's circuit is like."""

    PANEL: ClassVar[str] = "Circuits"

    dim: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--dim",
            help="Value of an open dimension, NAME=VALUE, or INPUT:AXIS=VALUE where it has no "
            "name; may be repeated [a first axis: 1].",
        ),
    ] = None
    no_salt: Annotated[
        bool,
        typer.Option("--no-salt", help="Commit without salts: hidden activations can be guessed."),
    ] = False
    circuits: Annotated[
        str,
        typer.Option(
            "--circuits",
            help="hinted: results are given and checked, several times cheaper; native: ezkl "
            "computes and rounds, any operator, values far beyond --range-bits; auto: hinted where "
            "the whole model can be, else native, and says why.",
        ),
    ] = "auto"
    range_bits: Annotated[
        int,
        typer.Option(
            "--range-bits",
            help="Hinted circuits hold inputs and rounded activations within +-2^N; 5 is +-32. "
            "When a run says that a value left this range, give a larger N (each costs a little), "
            "or normalise the input.",
        ),
    ] = 5
    products: Annotated[
        str,
        typer.Option(
            "--products",
            help="How hinted circuits check products with weights. packed: inside, weights in the "
            "key; challenge: by a random combination, cheaper the larger a layer is, and "
            "verifiers are given the quantised weights.",
        ),
    ] = "packed"
    tokens: Annotated[
        str,
        typer.Option(
            "--tokens",
            help="revealed: rows of an embedding are looked up outside of circuits, and the "
            "statement shows at which numbers; hidden: in circuits, for small embeddings.",
        ),
    ] = "revealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """Which rewrites native circuits may have."""

    PANEL: ClassVar[str] = "Circuits"

    passes: Annotated[
        str,
        typer.Option(
            "--passes", help="Rewrite passes of native circuits: all, none, or names with commas."
        ),
    ] = "all"
    no_pass: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--no-pass", help="Rewrite pass to leave out; may be repeated."),
    ] = None


def plan_options(
    scale: int,
    circuits: CircuitOptions,
    passes: PassOptions | None = None,
    *,
    layers_per_chunk: int | None,
    workers: int = 2,
    memory: str | None = None,
) -> PlanOptions:
    """The plan options that the command line gives.

    Raises:
        ConfigError: One of them has no such value.
    """
    from zkml_ray.config import parse_size
    from zkml_ray.stages.plan import CIRCUITS, PRODUCTS, TOKENS, PlanOptions, chosen

    return PlanOptions(
        scale=scale,
        layers_per_chunk=layers_per_chunk,
        workers=workers,
        memory_bytes=None if memory is None else parse_size("--memory", memory),
        dimensions=_dimensions(circuits.dim or []),
        salted=not circuits.no_salt,
        passes=None if passes is None else _passes(passes.passes, passes.no_pass or []),
        circuits=chosen("circuits", circuits.circuits, CIRCUITS),
        range_bits=circuits.range_bits,
        products=chosen("products", circuits.products, PRODUCTS),
        tokens=chosen("tokens", circuits.tokens, TOKENS),
    )


def max_error_option(text: str | None) -> MaxError | None:
    """The tolerance that --max-error stands for; None: none was given.

    Raises:
        ConfigError: It has no such value.
    """
    from zkml_ray.stages.comparison import checked_max_error

    return None if text is None else checked_max_error(text)


def scale_options(text: str) -> Sequence[int]:
    """The scales that --scale stands for: one, or all that "auto" tries.

    Raises:
        ConfigError: It is neither a number nor "auto".
    """
    from zkml_ray.stages.accuracy import AUTO_SCALES

    if text == "auto":
        return AUTO_SCALES
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise ConfigError(f"--scale is a number of bits or auto, not {text}")
    return (int(text),)


def _passes(passes: str, without: list[str]) -> tuple[str, ...] | None:
    """Names of the passes to use; None: all. Unknown names are refused by PlanOptions."""
    from zkml_ray.chunking.rewrite import PASSES

    if passes == "all" and not without:
        return None
    if passes in ("all", "none"):
        named = list(PASSES) if passes == "all" else []
    else:
        named = [name.strip() for name in passes.split(",")]
    for name in without:
        if name not in PASSES:
            raise ConfigError(
                f"--no-pass {name}: there is no such pass; passes: {', '.join(PASSES)}"
            )
    return tuple(name for name in named if name not in without)


def _dimensions(pairs: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, separator, value = pair.rpartition("=")
        if not separator or not (value.isascii() and value.isdecimal() and len(value) <= 10):
            raise ConfigError(f"--dim {pair} must look like NAME=VALUE, such as batch=1")
        found[name] = int(value)
    return found
