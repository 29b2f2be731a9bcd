"""Pages of `din-explain` whose every text is hostile, opened in a browser.

    make pages

Each value of `VALUES` stands in every place where a stranger's text can: the model's
name, the names of rows, columns and sequences, and their values; in a page of one
candidate and of two, as a file and as a notebook has it. Headless Chromium opens it,
waits for scripts and prints the document that it has then. A finding is an element or
an attribute that only a value can have made, or a page that lost its own.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = "document.documentElement.dataset.pwned=1"
SCRIPT = f"<script>{RUN}</script>"
VALUES = [
    SCRIPT,
    f'"><img src=x onerror="{RUN}">',
    f"'><svg onload='{RUN}'>",
    f"</style>{SCRIPT}",
    f"</title>{SCRIPT}",
    f"</div></main></body></html>{SCRIPT}",
    f"-->{SCRIPT}<!--",
    f"<![CDATA[{SCRIPT}]]>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",  # as UTF-7
    f'" onmouseover={RUN} autofocus onfocus={RUN} x="',
    f"javascript:{RUN}",
    f"expression({RUN})",
    "x;--neg:url(javascript:1);}</style><b id=pwned>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    "\u202e<b id=pwned>\u202c\u2066",
    "\x00<b id=pwned>\x1b[31m",
    "\ud800<b id=pwned>",
    "\u2028<b id=pwned>\r\n",
    "<b id=pwned>" * 80_000,
]
FOREIGN = {"script", "iframe", "img", "b", "a", "object", "form"}


class Foreign(HTMLParser):
    """Lists what no page of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.has_main = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at an element."""
        self.has_main |= "din-x" in (dict(attrs).get("class") or "").split()
        names = {name for name, _ in attrs}
        if (
            tag in FOREIGN
            or ("id", "pwned") in attrs
            or any(n.startswith("on") or n == "data-pwned" for n in names)
        ):
            self.found.append(f"<{tag} {' '.join(sorted(names))}>")


def pages_of(value: str) -> list[str]:
    """Make the pages of a value."""
    from din_infer.explain import ExplainedRow, Explanation
    from tests.test_explain import sequence_of

    columns = {value: [value] * 3, "null": [None] * 3}
    sequence = sequence_of([0.5] * 3, name=value, **columns)
    row = ExplainedRow(0, 0, 0.5, value, {value: value}, {value: [value]}, (sequence,))
    made = []
    for count in (1, 2):
        explanation = Explanation((row,) * count, value)
        cell = explanation._repr_html_()
        made += [explanation.to_html(), f"<!doctype html><html><body>{cell}</body>"]
    return made


def open_page(browser: str, path: Path) -> list[str]:
    """Open a page, and list what is wrong with the document."""
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    line += ["--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    done = subprocess.run(line, capture_output=True, timeout=120, check=True)
    reader = Foreign()
    reader.feed(done.stdout.decode("utf-8", "replace"))
    return reader.found + ([] if reader.has_main else ["no page of ours"])


def main() -> int:
    """Open all pages; returns 1 if something of a value came to life."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--browser", default="chromium")
    browser = shutil.which(parser.parse_args().browser)
    if browser is None:
        sys.exit("expected Chromium, got none. apt-get install chromium")
    sys.path[:0] = [str(ROOT), str(ROOT / "converter")]
    opened = findings = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        for value in [*VALUES, "plain"]:
            for page in pages_of(value):
                path.write_bytes(page.encode("utf-8", "replace"))
                opened += 1
                if found := open_page(browser, path):
                    findings += 1
                    print(f"finding: {value[:60]!r}: {', '.join(found[:3])}")
        # what would be seen if nothing were escaped
        path.write_text(f"<div class=din-x>{SCRIPT}</div>", encoding="utf-8")
        if not open_page(browser, path):
            findings += 1
            print("finding: a script that runs is not seen")
    print(f"{opened} pages of {len(VALUES)} hostile values, {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
