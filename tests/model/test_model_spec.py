"""What the code says about docs/model-spec.md is true of that page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "model-spec.md"
REFERENCE = re.compile(r'docs/model-spec\.md,\s+"([^"]+)"')


def test_every_section_of_the_specification_that_is_named_exists() -> None:
    headings = set(re.findall(r"^#+ (.+)$", SPEC.read_text(encoding="utf-8"), re.MULTILINE))
    files = [
        *(path for room in ("model", "bench", "stream", "state", "tests") for path in (ROOT / room).rglob("*.py")),
        *(path for path in ROOT.glob("*.md")),
        *(path for path in (ROOT / "docs").rglob("*.md")),
    ]
    named = {
        (str(path.relative_to(ROOT)), " ".join(section.split()))
        for path in files
        for section in REFERENCE.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 15
    assert [(path, section) for path, section in sorted(named) if section not in headings] == []
