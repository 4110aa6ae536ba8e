"""The table of attention's tangents has each way with its error."""

from __future__ import annotations

from benchmarks.attention import ALONE, BLOCKS, MATRIX, main


def test_each_way_is_timed_and_right(capsys):
    main(["--lengths", "600", "--repeats", "1", "--device", "cpu"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == [ALONE, MATRIX, BLOCKS]
    assert rows[0][3] == "1.00" and all(float(row[2]) > 0 for row in rows)
    assert all(float(row[5]) < 1e-5 for row in rows[1:])
