"""What the raw runs of `versus_ezkl.py` come to: medians, ratios, table rows. No measuring here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

DEFAULT, TUNED = "a", "b"
NAMES = {
    "a": "stock ezkl, one circuit, default",
    "b": "stock ezkl, one circuit, tuned",
    "c": "stock ezkl, split, default",
}

Variants = Mapping[str, Mapping[str, Any]]


def variant_name(variant: str) -> str:
    """A variant in words."""
    if variant in NAMES:
        return NAMES[variant]
    workers = int(variant[1:])
    return f"zkml_ray, {workers} worker{'s' if workers > 1 else ''}"


def total_s(variant: str, run: Mapping[str, Any], clock: str = "wall_s") -> float:
    """Wall or CPU seconds from input to verified proof with keys at hand.

    Stock: witness, prove and verify. zkml_ray: the whole call, in which witnesses and proofs
    overlap and every proof is verified twice.
    """
    names = ("prove",) if variant.startswith("d") else ("witness", "prove", "verify")
    return sum(float(run["phases"][name][clock]) for name in names)


def ready_s(run: Mapping[str, Any]) -> float:
    """Seconds of a run of ours that a running cluster and a known plan would save; stock: none.

    Keys at hand suppose that somebody planned before, yet every call plans; and starts its Ray.
    """
    stages = dict(run["facts"].get("stages", []))
    return float(run["facts"].get("ray_start_s", 0.0)) + float(stages.get("plan", 0.0))


def summarise(variants: Variants) -> dict[str, dict[str, float]]:
    """Medians over the runs of each variant that succeeded.

    Args:
        variants: Per variant: `setup`, and `runs` as `versus_ezkl.py` writes them.
    """
    summary = {}
    for variant, record in variants.items():
        runs = [run for run in record["runs"] if not run["failure"]]
        if not runs:
            continue
        summary[variant] = {
            "runs": len(runs),
            "circuits": runs[0]["facts"]["circuits"],
            "setup_s": float(record["setup"]["wall_s"]),
            "setup_cpu_s": float(record["setup"]["cpu_s"]),
            "setup_peak_bytes": float(record["setup"]["largest_bytes"]),
            "total_s": median(total_s(variant, run) for run in runs),
            "total_cpu_s": median(total_s(variant, run, "cpu_s") for run in runs),
            **{
                f"{phase}_{unit}": median(run["phases"][phase][unit] for run in runs)
                for phase in ("witness", "prove", "verify")
                for unit in ("wall_s", "cpu_s")
            },
            "ready_s": median(ready_s(run) for run in runs),
            "peak_bytes": median(run["largest_bytes"] for run in runs),
            "proof_bytes": median(run["facts"]["proof_bytes"] for run in runs),
            "max_error": median(run["facts"]["max_error"] for run in runs),
        }
    return summary


def ratios(summary: Mapping[str, Mapping[str, float]], ours: str) -> dict[str, float | None]:
    """How many times better one of our variants is.

    Args:
        summary: From `summarise`.
        ours: "d1", "d2", ...

    Returns:
        Speedups in wall seconds of `total_s`; the memory ratio is of the largest process's peak,
        proving only. The "running" speedups leave `ready_s` out of ours. None where one side was
        not measured.
    """

    def ratio(other: str, field: str, less: str | None = None) -> float | None:
        if ours not in summary or other not in summary:
            return None
        mine = summary[ours]
        return summary[other][field] / (mine[field] - (mine[less] if less else 0.0))

    return {
        "speedup_vs_default": ratio(DEFAULT, "total_s"),
        "speedup_vs_tuned": ratio(TUNED, "total_s"),
        "running_speedup_vs_default": ratio(DEFAULT, "total_s", "ready_s"),
        "running_speedup_vs_tuned": ratio(TUNED, "total_s", "ready_s"),
        "cpu_ratio_vs_default": ratio(DEFAULT, "total_cpu_s"),
        "memory_ratio_vs_default": ratio(DEFAULT, "peak_bytes"),
    }


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The documents' table, as lines of markdown.

    Args:
        results: Result files, one per model.
    """
    lines = [
        "| model | variant | circuits | setup | witness | prove | verify | total | CPU "
        "| peak memory | proof | error |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        for variant in sorted(result["variants"]):
            cells = _cells(variant, result["variants"][variant], result["summary"].get(variant))
            lines.append(f"| {result['title']} | {variant_name(variant)} | {' | '.join(cells)} |")
    return lines


def _cells(variant: str, record: Mapping[str, Any], found: Mapping[str, float] | None) -> list[str]:
    if found is None:
        failures = [run["failure"] for run in record["runs"]] or [record["setup"]["failure"]]
        return [failures[-1] or "not run", *[""] * 9]
    return [
        f"{found['circuits']:.0f}",
        seconds(found["setup_s"]),
        seconds(found["witness_wall_s"]),
        seconds(found["prove_wall_s"]),
        seconds(found["verify_wall_s"]),
        seconds(found["total_s"]),
        seconds(found["total_cpu_s"]),
        gib(found["peak_bytes"]),
        f"{found['proof_bytes'] / 1000:.1f} kB",
        f"{found['max_error']:.4f}",
    ]


def ratio_table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Speedups and memory ratios, as lines of markdown."""
    lines = [
        "| model | workers | faster than default | faster than tuned | same, Ray running and plan "
        "known | memory, default / ours |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        for ours, found in sorted(result["ratios"].items()):
            cells = [
                " and ".join(
                    "-" if found[name] is None else f"{found[name]:.2f}x" for name in names
                )
                for names in (
                    ("speedup_vs_default",),
                    ("speedup_vs_tuned",),
                    ("running_speedup_vs_default", "running_speedup_vs_tuned"),
                    ("memory_ratio_vs_default",),
                )
            ]
            lines.append(f"| {result['title']} | {ours[1:]} | {' | '.join(cells)} |")
    return lines


def seconds(value: float) -> str:
    """Seconds with three significant digits or so."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} s"


def gib(value: float) -> str:
    """Bytes as GiB."""
    return f"{value / (1 << 30):.2f} GiB"
