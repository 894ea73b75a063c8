"""What the raw runs of `versus_ezkl.py` come to: medians, ratios, table rows. No measuring here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

DEFAULT, TUNED = "a", "b"
NAMES = {
    "a": "stock ezkl, one circuit, default",
    "b": "stock ezkl, one circuit, tuned",
    "c": "stock ezkl, split, default",
}

AT_LEAST = "_at_least"
SWAP_SHARE: Final = 0.02
"""A run that had less than this part of its memory swapped out was not slowed by it."""

_BOUNDS = {"total_s": "at_least_s", "peak_bytes": "at_least_bytes"}
"""Of a stopped or swapped variant, what bounds a figure of a complete one from below."""

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
            "swapped_bytes": median(float(run.get("swapped_bytes", 0)) for run in runs),
            **{
                f"{phase}_{unit}": median(run["phases"][phase][unit] for run in runs)
                for phase in ("witness", "prove", "verify")
                for unit in ("wall_s", "cpu_s")
            },
            "peak_bytes": median(run["largest_bytes"] for run in runs),
            "proof_bytes": median(run["facts"]["proof_bytes"] for run in runs),
            "max_error": median(run["facts"]["max_error"] for run in runs),
        }
    return summary


def stopped(variants: Variants) -> dict[str, dict[str, Any]]:
    """Variants that could not be proved within a limit, and how far they came.

    Args:
        variants: As for `summarise`; a variant with a run that succeeded is none of these.

    Returns:
        Per variant: `limit`, "memory" or "time"; `step`, "setup" or "prove"; `at_least_s`, seconds
        from the start of its first phase to the stop; `at_least_bytes`, the largest process's peak
        until then; `total_bytes`, of all its processes.
    """
    found = {}
    for variant, record in variants.items():
        if any(not run["failure"] for run in record["runs"]):
            continue
        tried = [("prove", run) for run in record["runs"]] or [("setup", record["setup"])]
        ended = [(step, one) for step, one in tried if one.get("stopped")]
        if ended:
            step, last = max(ended, key=lambda pair: float(pair[1]["begun_s"]))
            found[variant] = {
                "limit": last["stopped"],
                "step": step,
                "at_least_s": last["begun_s"],
                "at_least_bytes": max(one["largest_bytes"] for _, one in ended),
                "total_bytes": max(one["total_bytes"] for _, one in ended),
            }
    return found


def swapped(variants: Variants, cores: int) -> dict[str, dict[str, Any]]:
    """Variants that were proved, but with memory swapped out: their wall time is the disk's too.

    What they would take where everything fits is bounded from below by their CPU time outside the
    kernel, spread evenly over all cores.

    Args:
        variants: As for `summarise`.
        cores: Of the machine.

    Returns:
        Per variant: `at_least_s`.
    """
    found = {}
    for variant, record in variants.items():
        runs = [run for run in record["runs"] if not run["failure"]]
        away = [r for r in runs if r.get("swapped_bytes", 0) > SWAP_SHARE * r["largest_bytes"]]
        if away:
            bounds = [total_s(variant, run, "user_s") / cores for run in away]
            found[variant] = {"limit": "swap", "step": "prove", "at_least_s": median(bounds)}
    return found


def stopped_words(found: Mapping[str, Any]) -> str:
    """A stopped variant's result in words."""
    what = " (its keys)" if found["step"] == "setup" else ""
    if found["limit"] == "memory":
        return f"not possible in {found['total_bytes'] / (1 << 30):.1f} GiB{what}"
    return f"not done in {found['at_least_s']:.0f} s{what}"


def ratios(
    summary: Mapping[str, Mapping[str, float]],
    ours: str,
    ended: Mapping[str, Mapping[str, Any]],
) -> dict[str, float | None]:
    """How many times better one of our variants is.

    Args:
        summary: From `summarise`.
        ours: "d1", "d2", ...
        ended: From `stopped` and `swapped`.

    Returns:
        Speedups in wall seconds of `total_s`; the memory ratio is of the largest process's peak,
        proving only. None where one side was not measured. A name with "_at_least" is the lower
        bound where the other side was stopped while proving, as it would have taken more than it
        had until then, or had to swap.
    """

    def ratio(other: str, field: str) -> dict[str, float | None]:
        if ours not in summary:
            return {"": None, AT_LEAST: None}
        mine = summary[ours][field]
        far = ended.get(other, {})
        if _BOUNDS.get(field) in far:
            return {
                "": None,
                AT_LEAST: float(far[_BOUNDS[field]]) / mine if far["step"] == "prove" else None,
            }
        return {"": summary[other][field] / mine if other in summary else None, AT_LEAST: None}

    named = {
        "speedup_vs_default": ratio(DEFAULT, "total_s"),
        "speedup_vs_tuned": ratio(TUNED, "total_s"),
        "cpu_ratio_vs_default": ratio(DEFAULT, "total_cpu_s"),
        "memory_ratio_vs_default": ratio(DEFAULT, "peak_bytes"),
    }
    found = {n + suffix: value for n, both in named.items() for suffix, value in both.items()}
    del found["cpu_ratio_vs_default" + AT_LEAST]  # the watcher cannot tell the phases' share
    return found


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
            record = result["variants"][variant]
            ended = stopped({variant: record}).get(variant)
            cells = _cells(record, result["summary"].get(variant), ended)
            name = variant_name(variant) + remedy(record) + swapping(record)
            lines.append(f"| {result['title']} | {name} | {' | '.join(cells)} |")
    return lines


def remedy(record: Mapping[str, Any]) -> str:
    """What a variant's name adds where the notebook to the letter does not work."""
    tried = record.get("settings", {}).get("facts", {}).get("tried") or [{"to_the_letter": True}]
    return "" if tried[-1]["to_the_letter"] else ", multiplier 1"


def swapping(record: Mapping[str, Any]) -> str:
    """What a variant's name adds where its memory did not fit the machine's."""
    return ", swapping" if swapped({DEFAULT: record}, 1) else ""


def _cells(
    record: Mapping[str, Any],
    found: Mapping[str, float] | None,
    ended: Mapping[str, Any] | None,
) -> list[str]:
    if ended is not None:
        shown = [""] * 10
        if ended["step"] == "prove":
            if not record["setup"]["failure"]:
                shown[1] = seconds(float(record["setup"]["wall_s"]))
            shown[5] = f"> {seconds(ended['at_least_s'])}"
            shown[7] = f"> {gib(ended['at_least_bytes'])}"
        return [stopped_words(ended), *shown[1:]]
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
        "| model | workers | faster than default | faster than tuned | memory, default / ours |",
        "|---|--:|--:|--:|--:|",
    ]
    for result in results:
        for ours, found in sorted(result["ratios"].items()):
            names = ("speedup_vs_default", "speedup_vs_tuned", "memory_ratio_vs_default")
            cells = [_times(found, name) for name in names]
            lines.append(f"| {result['title']} | {ours[1:]} | {' | '.join(cells)} |")
    return lines


def _times(found: Mapping[str, float | None], name: str) -> str:
    exact, bound = found[name], found.get(name + AT_LEAST)
    if exact is not None:
        return f"{exact:.2f}x"
    return "-" if bound is None else f"> {bound:.2f}x"


def seconds(value: float) -> str:
    """Seconds with three significant digits or so."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} s"


def gib(value: float) -> str:
    """Bytes as GiB."""
    return f"{value / (1 << 30):.2f} GiB"
