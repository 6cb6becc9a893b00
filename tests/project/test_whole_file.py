"""Files appear whole or not at all, and leave nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshift.whole_file import whole_file, write_whole


def test_a_file_replaces_an_earlier_one_in_a_folder_that_is_created(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    assert write_whole(path, "one") == path
    write_whole(path, "zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_whole(tmp_path / "a.txt", "whole")
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "whole"
        raise error
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
