"""Plots of stored results, as SVG files that are the same bytes for the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.versus_summary import stopped, stopped_words, variant_name

Results = Sequence[Mapping[str, Any]]
COLOURS = {"a": "#8c8c8c", "b": "#c9a227", "c": "#b0624a"}
OURS = ("#4a7fb0", "#1f4e79", "#0b2540")


def versus_plot(results: Results, path: Path) -> None:
    """Seconds and peak memory of every variant, one group per model.

    A variant that was stopped has a hatched bar: how far it came, a lower bound.

    Args:
        results: Files of `versus_ezkl.py`.
        path: Where the plot goes.
    """
    if not results:
        return
    ended = [stopped(result["variants"]) for result in results]
    proving = [{v: e for v, e in each.items() if e["step"] == "prove"} for each in ended]
    variants = sorted(
        {variant for result in results for variant in result["summary"]}.union(*proving)
    )
    ours = [variant for variant in variants if variant not in COLOURS]
    colours = {**COLOURS, **dict(zip(ours, OURS, strict=False))}
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    fields = (
        ("total_s", "at_least_s", 1.0, "seconds, keys at hand"),
        ("peak_bytes", "at_least_bytes", 1 << 30, "GiB"),
    )
    for panel, (field, bound, unit, label) in zip(panels, fields, strict=True):
        width = 0.8 / max(1, len(variants))
        for position, variant in enumerate(variants):
            places = [i for i, result in enumerate(results) if variant in result["summary"]]
            heights = [results[i]["summary"][variant][field] / unit for i in places]
            offset = (position - (len(variants) - 1) / 2) * width
            panel.bar(
                [place + offset for place in places],
                heights,
                width,
                label=variant_name(variant),
                color=colours.get(variant),
            )
            for place, far in enumerate(proving):
                if variant in far:
                    height, words = far[variant][bound] / unit, stopped_words(far[variant])
                    colour = colours.get(variant)
                    style = {"facecolor": "none", "edgecolor": colour, "hatch": "///"}
                    panel.bar([place + offset], [height], width, **style)
                    mark = {"ha": "center", "va": "bottom", "fontsize": "x-small", "rotation": 90}
                    panel.text(place + offset, height, f"> ({words})", **mark)
        panel.set_xticks(range(len(results)), [result["title"] for result in results])
        panel.set_yscale("log")
        panel.set_ylabel(label)
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_title("input to verified proof")
    panels[1].set_title("largest process while proving")
    panels[0].legend(fontsize="small")
    _save(figure, path)


def scaling_plot(results: Results, path: Path) -> None:
    """Speedup of one input and efficiency of batches over workers.

    Args:
        results: Files of `scaling.py`.
        path: Where the plot goes.
    """
    if not results:
        return
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    strong, weak = figure.subplots(1, 2)
    for index, result in enumerate(results):
        colour, measured = f"C{index}", result["measured"]
        rows = result["simulated"]
        workers = [row["workers"] for row in rows]
        one_s = measured["strong_s"]["1"]
        title = result["title"]
        strong.plot(workers, [row["strong_speedup"] for row in rows], "--", color=colour)
        strong.plot(
            [1, 2], [1.0, one_s / measured["strong_s"]["2"]], "o-", color=colour, label=title
        )
        weak.plot(workers, [row["weak_efficiency"] for row in rows], "--", color=colour)
        weak.plot([1, 2], [1.0, measured["weak_efficiency_2"]], "o-", color=colour, label=title)
    for panel in (strong, weak):
        panel.set_xscale("log", base=2)
        panel.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        panel.set_xlabel("workers (points measured, dashes simulated)")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    strong.set_title("one input: speedup")
    weak.set_title("as many inputs as workers: efficiency")
    weak.set_ylim(0, 1.1)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "zkml_ray"}):  # element ids would be random
        figure.savefig(path, format="svg", metadata={"Date": None})
