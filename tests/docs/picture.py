"""`python -m tests.docs.picture TITLE < OUTPUT > PICTURE.svg`: a picture of what a terminal showed.

COLUMNS=126 TTY_COMPATIBLE=1 TTY_INTERACTIVE=0 make demo > demo.txt
python -m tests.docs.picture 'make demo' < demo.txt > docs/images/demo.svg
"""

import io
import re
import sys

from rich.console import Console
from rich.text import Text


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    shown = [Text.from_ansi(line.rstrip("\n")) for line in sys.stdin]
    for line in shown:
        line.rstrip()
    console = Console(record=True, file=io.StringIO(), width=max(line.cell_len for line in shown) + 1)
    for line in shown:
        console.print(line)
    svg = console.export_svg(title=sys.argv[1])
    # The reader's own font: a picture in a page may load none from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    sys.stdout.write("\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n")


if __name__ == "__main__":
    main()
