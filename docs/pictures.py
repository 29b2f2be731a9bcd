"""Make the pictures of docs/assets again, from what the commands really print.

  python docs/pictures.py       the data and commands are those of docs/start.md

Needs the extras `cpu,batch,convert,plot`, the dependency group `docs`, and Chromium for
the picture of a page; pngquant makes that one smaller, where it is installed.
"""

import io
import os
import pty
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs/assets"
WIDTH = 106  # what din-convert prints fits
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# rich's own names a font of another host
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})"
clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def on_terminal(command: str) -> str:
    """Run a command on a terminal; returns all that it wrote there."""
    said = io.BytesIO()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1 << 16)
        said.write(data)
        return data

    shell = ["sh", "-c", f"stty cols {WIDTH} rows 60; exec {command}"]
    if status := pty.spawn(shell, read):
        sys.exit(f"{command} ended with status {status}")
    return said.getvalue().decode().replace("\r\n", "\n")


def draw(name: str, command: str, said: str) -> None:
    """Draw a terminal with a command and what it printed."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "green"), (command, "bold")))
    console.print(Text.from_ansi(said.rstrip()))
    picture = console.export_svg(title=command.split()[0], code_format=FRAME)
    (ASSETS / f"{name}.svg").write_text(picture, encoding="utf-8")


def photograph(page: Path, out: Path, width: int, height: int) -> None:
    """Draw a page by Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("expected Chromium on the PATH, got none")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--window-size={width},{height}", f"--screenshot={out}"]
    subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True)
    shrink(out)


def shrink(picture: Path) -> None:
    """Take colors from a picture that no eye misses."""
    if pngquant := shutil.which("pngquant"):
        words = [pngquant, "--force", "--ext", ".png", "64", str(picture)]
        subprocess.run(words, check=True)


def main() -> None:
    """Make all pictures."""
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    logs = next(text for language, text in blocks if language == "python")
    spec = next(text for language, text in blocks if language == "toml")
    ASSETS.mkdir(exist_ok=True)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # on a busy machine, timings are odd
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("logs.py").write_text(logs)
        runpy.run_path("logs.py")
        Path("features.toml").write_text(spec)
        inspect = "din-inspect train.parquet --spec features.toml"
        said = on_terminal(inspect)
        draw("inspect", inspect, "..\n\n" + said[said.index("Does a DIN fit?") :])
        subprocess.run([*inspect.split(), "--plot", "fit.png"], check=True)
        shutil.copy("fit.png", ASSETS / "fit.png")
        shrink(ASSETS / "fit.png")
        train = "din-train train.parquet --spec features.toml --out model.pt"
        train += " --epochs 5 --batch-size 128 --learning-rate 0.01"
        subprocess.run(train.split(), check=True)
        convert = "din-convert model.pt --out model.onnx --explain"
        draw("convert", convert, on_terminal(convert))
        events = pq.read_table("events.parquet")
        pq.write_table(pa.concat_tables([events] * 500), "events.parquet")
        score = (
            "din-score model.onnx events.parquet --out scores/ --keep user_id,goods_id"
        )
        bars, _, rest = on_terminal(score).partition("\n")
        states = [bar for bar in bars.split("\r") if "%" in bar]
        draw("score", score, f"{states[len(states) // 2]}\n\n{rest}")
        pq.write_table(events, "events.parquet")
        explain = "din-explain model.onnx events.parquet --row 0 --out weights.html"
        subprocess.run(explain.split(), check=True)
        photograph(Path("weights.html").resolve(), ASSETS / "explain.png", 800, 480)


if __name__ == "__main__":
    main()
