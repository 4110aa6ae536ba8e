"""Averages by bands of t against hand computation; what an interrupted run had logged too much is forgotten."""

from __future__ import annotations

import errno
import json
import math

import pytest
import torch

from scm_media.training.reporting import BANDS, Reporter, TermAverages


def test_bands_cover_all_times():
    assert BANDS[0] == 0
    assert BANDS[-1] == math.pi / 2
    assert list(BANDS) == sorted(BANDS)


def test_terms_are_averaged_in_all_and_by_bands_of_t():
    averages = TermAverages()
    averages.add({"t": torch.tensor([0.1, 0.6]), "loss": torch.tensor([1.0, 3.0]), "g": torch.tensor([0.0, 4.0])})
    averages.add({"t": torch.tensor([0.79, 1.5, 0.2]), "loss": torch.tensor([5.0, 7.0, 9.0]), "g": torch.zeros(3)})
    assert averages.take() == {
        "loss": 5.0,
        "g": pytest.approx(0.8),
        "loss/t0.0-0.2": 1.0,
        "loss/t0.2-0.5": 9.0,
        "loss/t0.5-0.8": 4.0,
        "loss/t1.4-1.6": 7.0,
        "g/t0.0-0.2": 0.0,
        "g/t0.2-0.5": 0.0,
        "g/t0.5-0.8": 2.0,
        "g/t1.4-1.6": 0.0,
    }


def test_averages_start_afresh_and_need_no_times():
    averages = TermAverages()
    averages.add({"loss": torch.tensor([2.0, 4.0])})
    assert averages.take() == {"loss": 3.0}
    assert averages.take() == {}


def reported(folder, start: int) -> list[int]:
    Reporter(folder, "teacher", 100, start).close()
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_past_the_checkpoint_and_half_lines_are_forgotten(tmp_path):
    lines = [json.dumps({"step": step, "loss": 0.1}) for step in (0, 10, 20, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 40, "lo']))
    assert reported(tmp_path, 20) == [0, 10, 20, 20]
    assert reported(tmp_path, 0) == []


def test_a_figure_that_cannot_be_written_names_its_file(tmp_path):
    class Full:
        name = str(tmp_path / "metrics.jsonl")

        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    reporter = Reporter(tmp_path, "teacher", 10, 0)
    reporter._lines.close()
    reporter._lines = Full()
    with pytest.raises(OSError, match=r"metrics\.jsonl was not written \(No space left on device\)"):
        reporter.log(1, {"loss": 1.0})


def test_progress_is_a_line_where_there_is_no_terminal(tmp_path, capsys):
    reporter = Reporter(tmp_path, "student", 100, 0)
    reporter.show(50, 0.25, 1000.0)
    reporter.close()
    said = capsys.readouterr().err
    assert "student 50/100: loss 0.2500, 1000 samples/s, 0:0" in said
    assert said.endswith(" left\n")
