"""Paste tables of results into a page, so that none of its figures is typed.

A page says where: between ``<!-- FILE#SECTION: begin -->`` and ``<!-- end -->`` stands
what ``benchmarks/results/FILE.md`` has under a heading that begins with SECTION. What
several sections have in common, as the machine, is FILE alone: the text before its
first section.

example:
  python -m benchmarks.paste docs/scaling.md
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from din_infer.whole_file import write_whole

__all__ = ["main", "pasted"]

RESULTS = Path(__file__).with_name("results")
MARK = re.compile(
    r"(<!-- ([\w-]+)(?:#([\w -]+))?: begin -->\n).*?(<!-- end -->)", re.DOTALL
)


def pasted(page: str, results: Path = RESULTS) -> str:
    """Return the page with the tables of today's results.

    Raises
    ------
    LookupError
        If a mark names a file or a section that is not there.
    """

    def fill(mark: re.Match[str]) -> str:
        begin, name, section, end = mark.groups()
        file = results / f"{name}.md"
        if not file.exists():
            message = f"expected results in {file}, got no such file - at `{name}`"
            raise LookupError(message)
        head, *sections = file.read_text(encoding="utf-8").split("\n## ")
        if section is None:
            return f"{begin}\n{head.partition(chr(10))[2].strip()}\n\n{end}"
        for text in sections:
            title, _, body = text.partition("\n")
            if title == section or title.startswith(f"{section}:"):
                return f"{begin}\n{body.strip()}\n\n{end}"
        message = f"expected a section {section!r} in {file}, got none - at `{name}`"
        raise LookupError(message)

    return MARK.sub(fill, page)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    for page in parser.parse_args(argv).pages:
        try:
            text = pasted(page.read_text(encoding="utf-8"))
        except LookupError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        write_whole(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
