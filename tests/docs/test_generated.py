"""The pages that are made from the code say what the code says."""

import pytest

from tests.docs.generate import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_gives(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]() + "\n", (
        f"docs/{name} is out of date: run `python -m tests.docs.generate` to refresh it"
    )
