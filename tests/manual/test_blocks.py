"""What is taken for a block of a page, and that none escapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manual import blocks as collector
from manual.blocks import EXECUTED, OTHERS, blocks, pages

PAGE = """# A page

<!-- not executed: needs
a moon -->
```bash
moon
```

1. Step

    ```python title="a/b.py"
    if x:
        y
    ```

<!-- a remark -->

<!-- before:
x = 1
-->
<!-- exit code 0, 4: nothing is there -->
```python
print(x)
```

<!-- keeps running until: ready. -->
```bash
serve
```
"""


def test_blocks_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    moon, file, code, serve = blocks(page)
    assert (moon.line, moon.language, moon.reason, moon.executed) == (5, "bash", "needs a moon", False)
    assert (file.title, file.code, file.executed) == ("a/b.py", "if x:\n    y\n", True)
    assert (code.before, code.exit_codes, code.code, code.reason) == ("x = 1\n", (0, 4), "print(x)\n", None)
    assert (serve.until, serve.before) == ("ready.", "")


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_block_says_its_language(page: Path) -> None:
    for block in blocks(page):
        where = f"{block.page}:{block.line}"
        assert block.language in (*EXECUTED, *OTHERS), f"{where}: a block is one of {EXECUTED} or {OTHERS}"
        if block.language == "text":
            command = re.search(r"^(?:\$ |bin/|make |steersman |python -m|docker |curl )", block.code, re.M)
            assert not command or block.page.startswith("docs/reference"), f"{where}: commands are bash"


def test_the_count_of_what_is_not_executed_names_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert collector.main() == 0
    said = capsys.readouterr().out
    left_out = [b for page in pages() for b in blocks(page) if b.language in EXECUTED and not b.executed]
    assert said.count("not executed: ") == len(left_out)
    assert "None" not in said
