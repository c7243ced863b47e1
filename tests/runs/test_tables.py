"""Tables that runs write and read again."""

import pytest

from ntk_tf import runs

COLUMNS = {"width": int, "cosine": lambda cell: float(cell) if cell else None}


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "widths.csv"
    assert runs.read_table(path, COLUMNS) == []  # no file
    rows = [{"width": 1, "cosine": 0.1 + 0.2}, {"width": 20, "cosine": None}]
    runs.write_table(path, ["cosine", "width", "seed"], rows)
    assert runs.read_table(path, COLUMNS) == rows
    added = {"velocity": lambda cell: cell or "none"}
    assert runs.read_table(path, COLUMNS | added, added)[0] == rows[0] | {"velocity": "none"}


@pytest.mark.parametrize(
    "content",
    [
        b"width\n1\n",
        b"width,cosine\n1.5,1\n",
        b"width,cosine\n1,x\n",
        b"width,cosine\n1\n,\n",
        b"width,cosine\n" + 200_000 * b"0",
        b"width,cosine\n\xff,1\n",
        b"width,cosine\n\0,1\n",
    ],
)
def test_damage_is_told_in_a_line(content, tmp_path):
    path = tmp_path / "widths.csv"
    path.write_bytes(content)
    with pytest.raises(runs.DamagedError, match=rf"^{path}: is damaged \(.*\)$"):
        runs.read_table(path, COLUMNS)


def test_what_cannot_be_read_is_no_table(tmp_path):
    with pytest.raises(runs.RunDirectoryError, match="cannot be read"):
        runs.read_table(tmp_path, COLUMNS)
