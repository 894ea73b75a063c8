"""Tables and plots from stored results. Measures nothing; `make bench` runs it.

    python benchmarks/report.py [--check]

Reads benchmarks/results, writes the marked blocks of docs/benchmarks.md and README.md, and plots.
With --check it only says whether the tables in the documents are those of the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.versus_summary import gib, ratio_table, seconds, table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
PLOTS = ROOT / "docs" / "plots"
OUR_PACKING = "ours, PACK 8"

ORDER = ("digits", "lenet5", "resnet_block", "encoder_block")
"""Models as tables list them."""

Results = Sequence[Mapping[str, Any]]


def stored(folder: Path) -> list[dict[str, Any]]:
    """The result files of a folder, in the order of `ORDER`."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: ORDER.index(result["model"]))


def scaling_table(results: Results) -> list[str]:
    """Scaling, as lines of markdown."""
    lines = [
        "| model | workers | | one input | efficiency | limited by | a batch of as many inputs "
        "| efficiency |",
        "|---|--:|---|--:|--:|---|--:|--:|",
    ]
    for result in results:
        title, measured = result["title"], result["measured"]
        for workers in ("1", "2"):
            strong_s, weak_s = measured["strong_s"][workers], measured["weak_s"][workers]
            strong = measured["strong_s"]["1"] / strong_s / int(workers)
            weak = measured["weak_s"]["1"] / weak_s
            lines.append(
                f"| {title} | {workers} | measured | {seconds(strong_s)} | {strong:.0%} | "
                f"| {seconds(weak_s)} | {weak:.0%} |"
            )
        for row in result["simulated"]:
            lines.append(
                f"| {title} | {row['workers']} | simulated | {seconds(row['strong_s'])} "
                f"| {row['strong_efficiency']:.0%} | {row['strong_limit']} "
                f"| {seconds(row['weak_s'])} | {row['weak_efficiency']:.0%} |"
            )
    return lines


def accuracy_table(results: Results) -> list[str]:
    """Errors beside stock ezkl's own calibrated circuit, and classes, as lines of markdown."""
    lines = [
        "| model | inputs | mean error, ours | stock | largest error, ours | stock "
        "| top-1, floats | ours | difference | same class |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        ours, theirs = result["ours"], result["stock"]
        errors = [
            f"{side[kind]:.{digits}f}"
            for kind, digits in (("mean_abs_error", 5), ("max_abs_error", 4))
            for side in (ours, theirs)
        ]
        classes = ["-"] * 4
        if "float_top1" in result:
            points = 100 * (ours["top1"] - result["float_top1"])
            classes = [
                f"{result['float_top1']:.2%}",
                f"{ours['top1']:.2%}",
                f"{points:+.2f} points",
                f"{ours['agreement']:.2%}",
            ]
        cells = [result["title"], str(result["inputs"]), *errors, *classes]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def big_table(results: Results) -> list[str]:
    """The encoder that one circuit cannot hold, as lines of markdown."""
    lines = ["| | |", "|---|---|"]
    for result in results:
        size = result["encoder"]
        of = f"{size['layers']} layers, {size['width']} wide, {size['heads']} heads"
        lines.append(f"| model | {of}, FFN {size['hidden']}, {size['tokens']} tokens |")
        for block, kind in (
            ("one_circuit", "one circuit, default arguments (unsound)"),
            ("one_sound_circuit", "one circuit without Freivalds' argument"),
        ):
            one = result.get(block)
            if one and not one["failure"]:
                size = f"{one['num_rows']:,} rows, logrows {one['logrows']}"
                if one["predicted_bytes"]:
                    low, high = (gib(value) for value in one["predicted_bytes"])
                    size += f", predicted memory {low} to {high}"
                lines.append(f"| {kind} would need | {size} |")
        if proved := result.get("proved"):
            lines += [
                f"| proved with | `--memory {result['memory']}`, {chunks_in_words(proved)} |",
                f"| largest process, measured | {gib(proved['largest_bytes'])} |",
                f"| proving, sum over workers | {seconds(proved['prove_worker_s'])} |",
                f"| making keys, sum over workers | {seconds(proved['setup_worker_s'])} |",
                f"| wall time with a chunk in hand | {seconds(proved['busy_wall_s'])} |",
                f"| wall time in all, planning and SRS included | {seconds(in_all_s(result))} |",
                f"| sessions | {proved['sessions']} |",
                f"| verifying all proofs | {seconds(proved['verify_all_s'])} |",
                f"| proofs | {proved['proof_bytes'] / 1e6:.2f} MB |",
                f"| largest error of an output | {proved['max_error']:.4f} |",
            ]
        if more := result.get("extrapolated"):
            lines.append(
                f"| **extrapolated** from {more['from_layers']} to {more['layers']} layers "
                f"| proving {seconds(more['prove_worker_s'])} over workers, "
                f"wall {seconds(more['busy_wall_s'])} |"
            )
    return lines


def in_all_s(result: Mapping[str, Any]) -> float:
    """Wall time of all sessions that the big model took."""
    return sum(float(session["wall_s"]) for session in result["sessions"])


def big_line(results: Results) -> list[str]:
    """The same in a sentence, of the model with most layers."""
    result = max(results, key=lambda result: int(result["encoder"]["layers"]))
    size, proved, one = result["encoder"], result["proved"], result["one_circuit"]
    low, high = (gib(value) for value in one["predicted_bytes"])
    return [
        f"A transformer encoder of {size['layers']} layers ({size['width']} wide) was proved by",
        f"{result['workers']} workers on this machine in {in_all_s(result) / 60:.0f} minutes, keys",
        f"made on the way, and no process took more than {gib(proved['largest_bytes'])}. As one",
        f"circuit it would have 2^{one['logrows']} rows and take {low} to {high}, predicted from",
        "measured circuits.",
    ]


def chunks_in_words(proved: Mapping[str, Any]) -> str:
    """How many chunks of which kind."""
    kinds = Counter(proved["circuits"]["kinds"])
    return ", ".join(f"{count} {kind} chunks" for kind, count in sorted(kinds.items()))


def commitment_table(result: Mapping[str, Any]) -> list[str]:
    """What committing to a boundary costs, and its share of LeNet-5, as lines of markdown.

    Args:
        result: The file of `commitment_cost.py`.
    """
    kinds: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in result["boundaries"]:
        kinds.setdefault(row["n"], {})[row["kind"]] = row
    lines = [
        "| n | Poseidon rows, plain `hashed` | ours | no commitment | plain `hashed` | ours |",
        "|---|---|---|---|---|---|",
    ]
    for count, by_kind in kinds.items():
        plain, ours = by_kind["hashed"], by_kind[OUR_PACKING]
        spent = (by_kind["none"], plain, ours)
        shown = [
            "not proved" if row["prove_cpu_s"] is None else f"{row['prove_cpu_s']:.2f} s"
            for row in spent
        ]
        lines.append(
            f"| {count} | {plain['poseidon_rows']:,} | {ours['poseidon_rows']:,} "
            f"| {' | '.join(shown)} |"
        )
    shares = [
        1 - row["without"]["prove_cpu_s"] / row["with"]["prove_cpu_s"] for row in result["lenet5"]
    ]
    return [
        *lines,
        "",
        "On LeNet-5, at the same logrows and columns, commitments take "
        f"{min(shares):.0%} to {max(shares):.0%} of a chunk's",
        f"proving time, {result['lenet5_share']:.1%} of all chunks together.",
    ]


def verifying_line(result: Mapping[str, Any]) -> list[str]:
    """What an outsider's verification takes.

    Args:
        result: The file of `verify_cost.py` on LeNet-5.
    """
    wall_s = median(run["wall_s"] for run in result["runs"])
    peak_mib = max(run["peak_rss_bytes"] for run in result["runs"]) / (1 << 20)
    size = f"{result['bundle_bytes'] / 1000:.0f} kB"
    return [
        f"Verifying LeNet-5 from its bundle ({size}): {wall_s:.1f} s and {peak_mib:.0f} MiB, the",
        "start of the process included (`benchmarks/verify_cost.py`).",
    ]


def circumstances(results: Results) -> list[str]:
    """On what the results were measured, one line each distinct machine."""
    found = []
    for result in results:
        where = result.get("machine") or result.get("circumstances")
        if where:
            versions = where["versions"]
            found.append(
                f"- {where['cpu']}, {where['cores']} cores, python {where['python']}, "
                f"ezkl {versions['ezkl']}, ray {versions['ray']}"
            )
    return list(dict.fromkeys(found))


def blocks(results: Path) -> dict[str, list[str]]:
    """Every generated block by name.

    Args:
        results: Folder of stored results.
    """
    kinds = {kind: stored(results / kind) for kind in ("versus", "scaling", "accuracy")}
    big = [json.loads(path.read_text()) for path in sorted(results.glob("big*.json"))]
    commitment = json.loads((results / "commitment_cost.json").read_text())
    verifying = json.loads((results / "verify_cost_lenet5.json").read_text())
    makers: dict[str, Callable[[], list[str]]] = {
        "versus": lambda: table(kinds["versus"]),
        "ratios": lambda: ratio_table(kinds["versus"]),
        "scaling": lambda: scaling_table(kinds["scaling"]),
        "accuracy": lambda: accuracy_table(kinds["accuracy"]),
        "big": lambda: big_table(big),
        "bigline": lambda: big_line(big),
        "commitments": lambda: commitment_table(commitment),
        "verifying": lambda: verifying_line(verifying),
        "machines": lambda: circumstances([r for found in kinds.values() for r in found]),
    }
    return {name: make() for name, make in makers.items()}


def filled(document: str, made: Mapping[str, Sequence[str]]) -> str:
    """A document with its marked blocks replaced.

    Args:
        document: Markdown with `<!-- NAME:begin -->` and `<!-- NAME:end -->` lines.
        made: Lines by block name.

    Raises:
        ValueError: The document marks a block that is not made.
    """

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name not in made:
            raise ValueError(f"the document marks a block {name!r}, which nothing makes")
        body = "\n".join(made[name])
        return f"<!-- {name}:begin -->\n{body}\n<!-- {name}:end -->"

    pattern = r"<!-- ([a-z]+):begin -->\n.*?<!-- \1:end -->"
    return re.sub(pattern, replacement, document, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    made = blocks(RESULTS)
    former = {path: path.read_text() for path in DOCUMENTS}
    stale = [path for path, text in former.items() if filled(text, made) != text]
    if check:
        sys.exit(", ".join(p.name for p in stale) + ": run `make bench`" if stale else 0)
    for path in stale:
        path.write_text(filled(former[path], made))
    from benchmarks.plots import scaling_plot, versus_plot  # only plots need matplotlib

    PLOTS.mkdir(exist_ok=True)
    versus_plot(stored(RESULTS / "versus"), PLOTS / "versus.svg")
    scaling_plot(stored(RESULTS / "scaling"), PLOTS / "scaling.svg")


if __name__ == "__main__":
    main()
