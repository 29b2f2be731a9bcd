"""What all pictures share: matplotlib, colors, and how text is written.

The one module of `din_infer` that imports matplotlib, so that its absence is told in
one place. pyplot and its state are left alone.
"""

from collections.abc import Iterable
from typing import Any

from din_infer.errors import sentence
from din_infer.formatting import shorten

try:
    from matplotlib import font_manager, rcParams
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    fix = 'Run: pip install "din-infer[plot]"'
    message = sentence("matplotlib", "none", "plot", fix)
    raise ModuleNotFoundError(message, name=error.name) from None

__all__ = [
    "GRID",
    "INK",
    "SOFT",
    "Axes",
    "Colormap",
    "ConstrainedLayoutEngine",
    "Figure",
    "Letters",
    "LinearSegmentedColormap",
    "MaxNLocator",
    "Normalize",
    "say_nothing",
]

INK, SOFT, GRID = "#1b2330", "#667085", "#e3e7ee"

# Families that have the letters which matplotlib's own font lacks, where installed.
FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans",
    "Segoe UI",
)


class Letters:
    """How a picture writes: no mathematics, and only letters that a font here has."""

    def __init__(self) -> None:
        default = font_manager.FontProperties(family=rcParams["font.family"])
        paths: list[Any] = [font_manager.findfont(default)]
        family = list(rcParams["font.family"])
        installed = {f.name: f.fname for f in font_manager.fontManager.ttflist}
        for name in FAMILIES:
            if name in installed:
                family.append(name)
                paths.append(installed[name])
        self._fonts = [FT2Font(path) for path in paths]
        self.style: dict[str, Any] = dict(family=family, parse_math=False, usetex=False)
        self.soft = {**self.style, "fontsize": 9, "color": SOFT}

    def __call__(self, shown: str, longest: int = 60) -> str:
        """Shorten text, and put a square for what no font has."""
        known = "".join(c if self._has(c) else "\u25a1" for c in shown)
        return shorten(known, longest)

    def apply(self, labels: Iterable[Any]) -> None:
        """Write labels of ticks or of a legend so."""
        for written in labels:
            written.set(color=INK, fontsize=8, **self.style)

    def _has(self, letter: str) -> bool:
        return any(font.get_char_index(ord(letter)) for font in self._fonts)


def say_nothing(ax: Axes, why: str, **style: Any) -> None:  # noqa: ANN401
    """Write in the middle of axes why nothing is drawn there."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color=SOFT, **style)
