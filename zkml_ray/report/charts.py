"""Charts as inline SVG: Vega-Lite specifications, rendered on this machine by vl-convert.

Nothing is fetched and no script is left in what comes out. Colours are CSS variables of the page,
so that a chart follows it into the dark and onto paper. Names from a run are data of a
specification, never a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zkml_ray.report.graph import Drawing, Place
from zkml_ray.report.timeline import Timeline

Spec = dict[str, Any]

KINDS: Final[Mapping[str, str]] = {
    "start": "starting Ray",
    "plan": "plan",
    "setup": "SRS",
    "keys": "keys",
    "witness": "witness",
    "compare": "float model",
    "prove": "prove",
    "link": "link",
    "verify": "verify",
    "store": "store",
}
"""Kinds of work, in the order of their colours, and what a legend calls them."""

_LOCK: Final = "M-0.6,-0.05L0.6,-0.05L0.6,0.85L-0.6,0.85Z M-0.4,-0.05L-0.4,-0.45A0.4,0.4,0,0,1,0.4,-0.45L0.4,-0.05L0.22,-0.05L0.22,-0.45A0.22,0.22,0,0,0,-0.22,-0.45L-0.22,-0.05Z"  # noqa: E501
_EYE: Final = (
    "M-0.95,0Q0,-1.05,0.95,0Q0,1.05,-0.95,0Z M0.3,0A0.3,0.3,0,1,0,-0.3,0A0.3,0.3,0,1,0,0.3,0Z"
)
_COLUMN: Final = 118
_NARROW_COLUMN: Final = 50
_LINE: Final = 58
_NARROW_LINE: Final = 34
_BASE: Final = "https://vega.github.io/vega-datasets/"
_CONFIG: Final[Spec] = {
    "background": None,
    "padding": {"left": 16, "right": 16, "top": 6, "bottom": 6},
    "font": "system-ui, sans-serif",
    "aria": True,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 220,
        "titlePadding": 14,
    },
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "title": None, "orient": "top"},
    "text": {"color": "var(--ink)"},
}


def timeline_chart(line: Timeline) -> str:
    """Lanes of work; hovering shows chunk, kind and seconds."""
    lanes = line.lanes()
    values = [
        {
            "lane": span.lane,
            "kind": KINDS.get(span.kind, span.kind),
            "s": round(line.shown_s(span.started_s), 3),
            "e": round(line.shown_s(span.ended_s), 3),
            "t": " ".join(
                word
                for word in (
                    span.lane + ":",
                    KINDS.get(span.kind, span.kind),
                    span.chunk,
                    f"{span.seconds:.2f} s",
                    f"({span.note})" if span.note else "",
                )
                if word
            ),
        }
        for span in line.work
    ]
    used = [kind for kind in KINDS if any(v["kind"] == KINDS[kind] for v in values)]
    bars: Spec = {
        "data": {"values": values},
        "mark": {"type": "bar", "height": {"band": 0.72}},
        "encoding": {
            "x": {"field": "s", "type": "quantitative"},
            "x2": {"field": "e"},
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {
                    "domain": [KINDS[kind] for kind in used],
                    "range": [f"var(--k-{kind})" for kind in used],
                },
                "legend": {"symbolType": "square", "columns": 5, "title": None},
            },
            "description": {"field": "t"},
        },
    }
    crosses: Spec = {
        "data": {
            "values": [
                {
                    "lane": failure.worker,
                    "s": round(line.shown_s(failure.at_s), 3),
                    "t": f"{failure.worker}: attempt {failure.attempt} of {failure.chunk} failed: "
                    f"{failure.cause}",
                }
                for failure in line.failures
            ]
        },
        "mark": {
            "type": "point",
            "shape": "cross",
            "size": 130,
            "angle": 45,
            "color": "var(--bad)",
            "filled": True,
        },
        "encoding": {
            "x": {"field": "s", "type": "quantitative"},
            "description": {"field": "t"},
        },
    }
    return _svg(
        {
            "width": 900,
            "height": {"step": 30},
            "encoding": {
                "y": {
                    "field": "lane",
                    "type": "nominal",
                    "sort": lanes,
                    "title": None,
                    "scale": {"domain": lanes},
                },
                "x": {
                    "type": "quantitative",
                    "title": "seconds since the start",
                    "scale": {"nice": False},
                },
            },
            "layer": [bars, crosses] if line.failures else [bars],
        }
    )


def memory_chart(rows: Sequence[Mapping[str, Any]], budget_mib: float | None) -> str:
    """Memory a chunk: measured as a bar, predicted as a tick, the budget as a line.

    Args:
        rows: Per chunk `n` (its number), `measured` and `predicted` (MiB or None), `t` (a label).
        budget_mib: The budget; None: there was none.
    """
    step = 44 if len(rows) <= 20 else max(1.8, 900 / len(rows))
    every = 1 if len(rows) <= 60 else 25
    x: Spec = {
        "field": "n",
        "type": "ordinal",
        "title": "chunk",
        "axis": {
            "labelAngle": 0,
            "labelExpr": f"datum.value % {every} == 0 ? datum.label : ''",
            "ticks": False,
            "labelOverlap": False,
        },
    }
    y: Spec = {"type": "quantitative", "title": "MiB"}
    label: Spec = {"field": "t"}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "isValid(datum.measured)"}],
            "mark": {"type": "bar", "color": "var(--k-prove)", "width": {"band": 0.7}},
            "encoding": {"x": x, "y": {**y, "field": "measured"}, "description": label},
        },
        {
            "transform": [{"filter": "isValid(datum.predicted)"}],
            "mark": {
                "type": "tick",
                "color": "var(--ink)",
                "thickness": 2,
                "orient": "horizontal",
                "size": 0.9 * step,
            },
            "encoding": {"x": x, "y": {**y, "field": "predicted"}, "description": label},
        },
    ]
    if budget_mib is not None:
        layers.append(
            {
                "data": {"values": [{"b": budget_mib}]},
                "mark": {"type": "rule", "color": "var(--bad)", "strokeDash": [5, 3], "size": 2},
                "encoding": {"y": {**y, "field": "b"}},
            }
        )
    return _svg(
        {
            "data": {"values": list(rows)},
            "width": {"step": step},
            "height": 200,
            "layer": layers,
        }
    )


def outputs_chart(rows: Sequence[Mapping[str, Any]], best: int | None) -> str:
    """Bars of an output's values, the float model's as ticks.

    Args:
        rows: Per value `n` (its index, as text), `proved` and `float` (or None).
        best: The index to stress, or None.
    """
    order = [row["n"] for row in rows]
    y: Spec = {
        "field": "n",
        "type": "nominal",
        "sort": order,
        "title": None,
        "axis": {"ticks": False, "domain": False},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "height": {"band": 0.7}},
            "encoding": {
                "x": {"field": "proved", "type": "quantitative", "title": None},
                "y": y,
                "color": {
                    "condition": {"test": f"datum.n === '{best}'", "value": "var(--accent)"},
                    "value": "var(--bar)",
                },
                "description": {"field": "t"},
            },
        }
    ]
    if any(row["float"] is not None for row in rows):
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.float)"}],
                "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2},
                "encoding": {
                    "x": {"field": "float", "type": "quantitative", "title": None},
                    "y": y,
                    "description": {"field": "t"},
                },
            }
        )
    return _svg(
        {"data": {"values": list(rows)}, "width": 380, "height": {"step": 22}, "layer": layers}
    )


def accuracy_chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Largest error of every boundary, in plan order.

    Args:
        rows: Per boundary `n` (its position), `error` and `t` (a label).
    """
    return _svg(
        {
            "data": {"values": list(rows)},
            "width": max(380, min(900, 60 * len(rows))),
            "height": 170,
            "mark": {"type": "line", "point": {"size": 60}, "color": "var(--accent)"},
            "encoding": {
                "x": {
                    "field": "n",
                    "type": "quantitative",
                    "title": "boundary, from the input to the output",
                    "axis": {"tickMinStep": 1, "format": "d", "tickCount": min(len(rows), 20)},
                    "scale": {"nice": False},
                },
                "y": {"field": "error", "type": "quantitative", "title": "largest error"},
                "description": {"field": "t"},
            },
        }
    )


def graph_chart(
    drawing: Drawing,
    *,
    hidden: Mapping[str, bool],
    links: Mapping[str, str],
    seconds: Mapping[str, float],
    labels: Mapping[str, str],
) -> str:
    """The chunk graph: boxes a stage, boundaries as lines with a lock or an eye that is a link.

    Args:
        drawing: Where everything stands.
        hidden: Per boundary, whether its values are hidden.
        links: Per boundary, the fragment that tells more of it.
        seconds: Per chunk, its seconds of proving, which make its colour stronger.
        labels: Per chunk, what hovering says.
    """
    column, line = (_NARROW_COLUMN, _NARROW_LINE) if drawing.large else (_COLUMN, _LINE)
    half = 0.3 if drawing.large else 0.32
    most = max(seconds.values(), default=0.0) or 1.0
    boxes = [
        _box(place, half, seconds.get(place.name, 0.0) / most, labels) for place in drawing.places
    ]
    edges, marks = [], []
    number = 0
    drawn: set[str] = set()
    for edge in drawing.edges:
        # What goes on in a lower row leaves this one at its right end, and enters that one at its
        # left: a line between the two would cross everything.
        wraps = edge.target.column <= edge.source.column
        out, into = edge.source.column + half, edge.target.column - half
        if wraps:
            ways = [
                [(out, edge.source.line), (out + 0.4, edge.source.line)],
                [(into - 0.15, edge.target.line), (into, edge.target.line)],
            ]
        elif edge.target.column - edge.source.column > 1:  # over what stands between
            over = min(edge.source.line, edge.target.line) - 0.46
            ways = [
                [
                    (out, edge.source.line),
                    (out + 0.25, over),
                    (into - 0.25, over),
                    (into, edge.target.line),
                ]
            ]
        else:
            ways = [[(out, edge.source.line), (into, edge.target.line)]]
        for way in ways:
            number += 1
            edges += [
                {"x": x, "y": y, "i": i, "id": number, "w": wraps} for i, (x, y) in enumerate(way)
            ]
        if edge.boundary.name not in drawn:
            drawn.add(edge.boundary.name)
            rise = (edge.target.line - edge.source.line) / max(
                edge.target.column - edge.source.column, 1
            )
            hides = hidden[edge.boundary.name]
            marks.append(
                {
                    "x": edge.source.column + 0.5,
                    "y": edge.source.line + (0 if wraps else 0.5 * rise),
                    "lock": hides,
                    "u": links[edge.boundary.name],
                    "t": f"boundary {edge.boundary.name}, {'hidden' if hides else 'revealed'}: go "
                    "to its details",
                }
            )
    x: Spec = {
        "field": "x",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [-0.45, drawing.columns - 0.4], "nice": False, "zero": False},
    }
    y: Spec = {
        "field": "y",
        "type": "quantitative",
        "axis": None,
        "scale": {
            "domain": [-0.55, max(drawing.lines - 0.35, 1) - 0.4],
            "reverse": True,
            "nice": False,
            "zero": False,
        },
    }
    return _svg(
        {
            "width": max(160, round(column * (drawing.columns + 0.05))),
            "height": max(50, round(line * (max(drawing.lines - 0.35, 1) + 0.15))),
            "layer": [
                {
                    "data": {"values": edges},
                    "mark": {
                        "type": "line",
                        "interpolate": "monotone",
                        "size": 1.5,
                        "aria": False,
                    },
                    "encoding": {
                        "x": x,
                        "y": y,
                        "order": {"field": "i"},
                        "detail": {"field": "id"},
                        "color": {"value": "var(--edge)"},
                        "strokeDash": {
                            "field": "w",
                            "type": "nominal",
                            "scale": {"domain": [False, True], "range": [[1, 0], [3, 3]]},
                            "legend": None,
                        },
                    },
                },
                {
                    "data": {"values": boxes},
                    "mark": {"type": "rect", "cornerRadius": 6, "strokeWidth": 1.3},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "x2": {"field": "x2"},
                        "y2": {"field": "y2"},
                        "fill": {"field": "f", "type": "nominal", "scale": None},
                        "stroke": {"value": "var(--edge)"},
                        "description": {"field": "t"},
                    },
                },
                {
                    "data": {"values": boxes},
                    "mark": {
                        "type": "text",
                        "fontSize": 11 if drawing.large else 12,
                        "limit": round(2 * half * column) - 6,
                        "aria": False,
                    },
                    "encoding": {
                        "x": {**x, "field": "cx"},
                        "y": {**y, "field": "cy"},
                        "text": {"field": "s" if drawing.large else "label"},
                    },
                },
                {
                    "data": {"values": marks},
                    "mark": {
                        "type": "point",
                        "filled": True,
                        "size": 130 if drawing.large else 240,
                        "opacity": 1,
                        "stroke": "var(--card)",
                        "strokeWidth": 0,
                    },
                    "encoding": {
                        "x": x,
                        "y": y,
                        "shape": {
                            "condition": {"test": "datum.lock", "value": _LOCK},
                            "value": _EYE,
                        },
                        "color": {
                            "condition": {"test": "datum.lock", "value": "var(--lock)"},
                            "value": "var(--eye)",
                        },
                        "href": {"field": "u"},
                        "description": {"field": "t"},
                    },
                },
            ],
        }
    )


def _box(place: Place, half: float, share: float, labels: Mapping[str, str]) -> Spec:
    number = str(int(place.name.rpartition("-")[2])) if place.kind == "chunk" else ""
    name = f"chunk {number}" if place.kind == "chunk" else place.name
    return {
        "x": place.column - half,
        "x2": place.column + half,
        "y": place.line - 0.3,
        "y2": place.line + 0.3,
        "cx": place.column,
        "cy": place.line,
        "kind": place.kind,
        "label": name,
        "s": number or ("in" if place.kind == "input" else "out"),
        "f": f"color-mix(in srgb, var(--k-prove) {round(12 + 50 * share)}%, var(--card))"
        if place.kind == "chunk"
        else "var(--paper)",
        "t": labels.get(place.name, name)
        if place.kind == "chunk"
        else f"{place.kind} {place.name}",
    }


def _svg(spec: Spec) -> str:
    """Render a specification."""
    import vl_convert

    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "config": _CONFIG,
        **spec,
    }
    text: str = vl_convert.vegalite_to_svg(whole, vl_version="5.20")
    # The renderer marks up every group for screen readers, most without a name. What is left of
    # that is a title of each mark, which hovering shows as well, and a label of each link.
    text = re.sub(r' (?:role|aria-roledescription|aria-hidden)="[^"]*"', "", text)
    text = re.sub(r'<(path|line|g) aria-label="([^"]*)"([^>]*)/>', _titled, text)
    text = re.sub(r'(<(?!a )[a-z]+[^>]*?) aria-label="[^"]*"', r"\1", text)
    # Links are to this page, whatever base the renderer takes fragments for.
    return re.sub(
        rf'<a xlink:href="{re.escape(_BASE)}(#[^"]*)">(<path[^>]*><title>([^<]*)</title>)',
        r'<a class="mark" href="\1" aria-label="\3">\2',
        text,
    )


def _titled(mark: re.Match[str]) -> str:
    kind, label, rest = mark.groups()
    return f"<{kind}{rest}><title>{label}</title></{kind}>"
