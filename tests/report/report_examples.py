"""Descriptions, synthetic tables and checks of figures that the tests of the report share."""

from itertools import combinations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from prunelens.registry import Description
from prunelens.variants import Variant

TITLE = "A title that says in so many words what there is to see that it does not fit into a single line"
DESCRIPTIONS = {
    "structured_l1": Description("structured, L1", "#D55E00", "s"),
    "connection_l1": Description("connection, L1", "#009E73", "D"),
    "connection_l1_shared": Description("connection, L1, shared by a tensor's readers", "#66A61E", "p"),
    "mis": Description("MIS", limits=(0, 1), chance=0.5),
    "margin": Description("margin (similarity)"),
}


def make_accuracies(seeds: int = 3) -> pd.DataFrame:
    """Controls and two methods, one also unmasked and one also iterative; each seed adds .01."""
    rows = [(Variant("dense"), 0.9)]
    for seed in range(seeds):
        more = 0.01 * seed
        rows += [(Variant("dense", 0.0, "one_shot", seed, epochs=2), 0.91 + more)]
        rows += [(Variant("dense", seed=seed, weights="random"), 0.1)]
        for method, slope in (("structured_l1", 0.5), ("connection_l1", 0.3)):
            for rate in (0.2, 0.4, 0.8):
                rows.append((Variant(method, rate, "one_shot", seed, epochs=2), 0.9 - slope * rate + more))
                rows.append((Variant(method, rate, "none", seed), 0.1 + more))
        rows += [(Variant("connection_l1", 0.8, "one_shot", seed, masked=False, epochs=2), 0.5 + more)]
        rows += [(Variant("structured_l1", r, "iterative", seed, epochs=2), 0.9 - 0.4 * r) for r in (0.4, 0.8)]
    table = pd.DataFrame([{**variant.fields(), "top1": top1} for variant, top1 in rows])
    grown = 0.95 * table.rate.where(table.masked, 0)
    return table.assign(mask_sparsity=table.rate, conv_sparsity=grown, n=100)


def check_layout(figure: Figure) -> None:
    """All texts are inside the figure, none lies on another's place, and the legend is outside of all panels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox.padded(2)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    boxes = [axis.get_tightbbox(renderer) for axis in shown]
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    labels = [text for text in (figure._suptitle, figure._supxlabel, figure._supylabel) if text and text.get_text()]
    for box in [*boxes, *legends, *(text.get_window_extent() for text in labels)]:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    assert not any(legend.overlaps(box) for legend in legends for box in boxes)
    titles = [text for axis in shown for text in axis.findobj(Text) if text.get_text() == axis.get_title("left")]
    assert apart([text for text in titles if text.get_text()] + labels)
    for axis in shown:
        assert apart([tick for tick in axis.get_xticklabels() if tick.get_text()])
        assert apart([tick for tick in axis.get_yticklabels() if tick.get_text()])


def apart(texts: list[Text]) -> bool:
    return not any(a.get_window_extent().overlaps(b.get_window_extent()) for a, b in combinations(texts, 2))
