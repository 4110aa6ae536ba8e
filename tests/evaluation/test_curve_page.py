"""The page of a curve: whole HTML that needs nothing else, with all numbers, players, and a limit of its size."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import scm_media
from modalities.audio.modality import AudioModality
from modalities.image.modality import ImageModality
from modalities.video.modality import VideoModality
from scm_media.evaluation.curve_page import curve_page, write_curve_page
from scm_media.evaluation.row_text import compared_teacher, row_name
from scm_media.evaluation.side_by_side import SampleRow, data_uri, make_file, make_sample_rows
from scm_media.evaluation.summary import cautions, headline
from scm_media.pipeline.card import format_operations
from tests.evaluation.curve_metrics import GIGA, make_metrics, make_old_metrics

VOID = {"meta", "img", "use", "path", "br", "rect"}
MEMORIZATION = {
    "num_samples": 20,
    "sampler": "consistency",
    "steps": 2,
    "num_train": 150,
    "features": {"name": "flat", "dimension": 8},
    "median": 1.25,
    "num_held_out": 30,
    "median_held_out": 1.5,
    "fraction_below": 0.0,
    "nearer_than_held_out": 0.5,
}


class Page(HTMLParser):
    """Reads a page; asserts that elements are closed in order, and keeps text, elements and ids."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"
        self.ids = [values["id"] for _, values in self.elements if "id" in values]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [values for each, values in self.elements if each == tag]


def page_of(metrics, *arguments, **more):
    """Returns the page without its plots, which take seconds."""
    return curve_page(metrics, [], *arguments, **more)


def written(tmp_path, metrics, *arguments, **more):
    write_curve_page(metrics, tmp_path / "report.html", *arguments, **more)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files():
    """A file of each modality."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "image": (ImageModality(size=16, channels=1), (1, 16, 16)),
        "audio": (AudioModality(sample_rate=8000, duration=0.25), (1, 2000)),
        "video": (VideoModality(num_frames=4, size=32), (3, 4, 32, 32)),
    }
    return {
        name: make_file(modality, torch.rand(shape, generator=generator) * 2 - 1, {"seed": 0}, "a <label>")
        for name, (modality, shape) in made.items()
    }


def test_the_page_stands_alone_and_has_the_numbers_of_each_row(tmp_path):
    metrics = make_metrics()
    page = Page(written(tmp_path, metrics, (), "scm-media evaluate test/tiny --curve"))
    for row in metrics["rows"]:
        low, high = row["intervals"]["frechet"]
        assert row_name(row) in page.text
        for text in (f"{row['frechet']:.4g} [{low:.4g}, {high:.4g}]", f"{20 * row['frechet']:.4g}"):
            assert text in page.text
        assert f"{3 * row['frechet']:.4g} (0.125)" in page.text
        assert f"{1000 * row['seconds_per_sample']:.4g}" in page.text
    for text in (
        "0.0522 [0.04, 0.06]",
        "0.123",
        "held-out data, 9000",
        "motion, pixels",
        "1.875",
        "126 G",
        "τ = 0.87",
    ):
        assert text in page.text
    assert "student 1 G, teacher 1 G, guide 250 M." in page.text
    assert "scm-media evaluate test/tiny --curve" in page.text
    assert len(page.ids) == len(set(page.ids))
    assert not page.all("script") and not page.all("link")
    assert all(values["src"].startswith("data:") for tag in ("img", "audio", "video") for values in page.all(tag))
    assert len(page.all("svg")) == 3
    assert all(values["aria-label"] for values in page.all("svg"))
    assert all(values["tabindex"] == "0" for values in page.all("div") if "wide" in (values.get("class") or ""))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    picture = Image.open(tmp_path / "curve.png")
    assert picture.width > 1000
    assert picture.convert("L").getextrema() == (0, 255)


def test_figures_of_an_older_evaluation_are_shown_as_far_as_they_go(tmp_path):
    page = Page(written(tmp_path, make_old_metrics()))
    assert "student, 2 steps" in page.text
    assert "0.65" in page.text
    for text in ("operations", "coverage", "second network", "Statistics", "reconstructions", "None", "nan"):
        assert text not in page.text
    assert len(page.all("svg")) == 2
    assert "evaluations a sample" in page.text


def test_statistics_without_real_data_stand_alone():
    metrics = make_metrics(statistics={"motion": {"unit": "pixels", "mean": None}}, floor=None, ceiling=None)
    page = Page(page_of(metrics))
    assert "held-out data were not measured" in page.text
    assert "parentheses" not in page.text
    with_data = Page(page_of(make_metrics())).text.split("Statistics of samples")[1]
    assert "held-out data, " in with_data.split("Means;")[0] and "1.875 (0.0625)" in with_data
    assert "held-out data" not in page.text.split("Statistics of samples")[1].split("Means;")[0]


def test_names_of_strangers_are_text(tmp_path):
    name = '"><script>alert(1)</script>\x1b[31m'
    metrics = make_metrics(name, features={"name": name, "dimension": 8})
    metrics["rows"][0]["sampler"] = name
    metrics["statistics"] = {name: {"unit": name, "mean": 1.0}}
    metrics["second_features"]["name"] = name
    files = [make_file(ImageModality(size=8, channels=1), torch.zeros(1, 8, 8), {}, name)]
    source = written(tmp_path, metrics, [SampleRow(name, files)], f"scm-media {name}")
    page = Page(source)
    assert not page.all("script")
    assert "\x1b" not in source
    assert 'Evaluation of "><script>' in page.text
    assert page.all("img")[0]["alt"].startswith('sample 0, "><script>')


def test_players_of_each_modality_have_a_name_and_a_picture(files):
    rows = [SampleRow("2 steps", [file]) for file in files.values()]
    page = Page(page_of(make_metrics(), rows))
    (video,), (audio,) = page.all("video"), page.all("audio")
    assert video["src"].startswith("data:video/mp4;base64,")
    assert {"controls", "loop"} <= set(video)
    assert "autoplay" not in video
    assert "controls" in audio
    assert audio["src"].startswith("data:audio/x-wav;base64,UklGR") or audio["src"].startswith("data:audio/wav")
    assert audio["aria-label"] == video["aria-label"] == "sample 0, 2 steps, a <label>"
    pictures = page.all("img")
    assert [each["alt"] for each in pictures] == [
        "sample 0, 2 steps, a <label>",
        "picture of sample 0, 2 steps, a <label>",
    ]
    shown = Image.open(io.BytesIO(base64.b64decode(pictures[0]["src"].partition(",")[2])))
    assert shown.size == (16, 16)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[1]["src"].partition(",")[2]))).width > 100


def test_samples_beyond_the_limit_are_left_out_and_the_page_says_so(files):
    rows = [SampleRow(name, [files["audio"]] * 6) for name in ("1 step", "2 steps")]
    whole = page_of(make_metrics(), rows)
    alone = page_of(make_metrics())
    limit = len(alone.encode()) + (len(whole.encode()) - len(alone.encode())) // 2
    cut = page_of(make_metrics(), rows, limit=limit)
    num = len(Page(cut).all("audio")) // 2
    assert len(Page(whole).all("audio")) == 12
    assert 1 <= num < 6
    assert len(cut.encode()) <= limit
    assert f"{num} of 6 samples are shown" in Page(cut).text
    assert "samples are shown" not in whole
    none = page_of(make_metrics(), rows, limit=len(alone.encode()))
    assert "0 of 6 samples are shown" in Page(none).text
    assert not Page(none).all("audio")


def test_memorization_stands_on_the_page_with_its_picture(tmp_path):
    sheet = tmp_path / "memorization.png"
    Image.new("RGB", (20, 10)).save(sheet)
    metrics = make_metrics(memorization=MEMORIZATION)
    page = Page(page_of(metrics, sheet=sheet))
    assert "median distance to the nearest training sample: 1.25" in page.text
    assert page.all("img")[0]["src"] == data_uri("image/png", sheet.read_bytes())
    secret = tmp_path / "secret"
    secret.write_bytes(sheet.read_bytes())
    sheet.unlink()
    sheet.symlink_to(secret)
    assert not Page(page_of(metrics, sheet=sheet)).all("img"), "a link is not followed"


def test_the_headline_says_ratios_and_which_targets_are_missed():
    said = " ".join(headline(make_metrics()))
    assert "1.3 × the teacher's, from 1.18 to 1.44 within both intervals (0.65 against 0.5; heun, 32 steps)" in said
    assert "1/63 of the teacher's operations and 1/50 of the teacher's seconds" in said
    assert "Missed: a distance within 10 % of the teacher's (30 % above it)." in said
    assert "Reached: 50 × fewer seconds than the teacher (50 ×)." in said
    assert "heun with 8 steps (distance 0.6), at 15 times their operations" in said
    close = " ".join(headline(make_metrics(student=0.54)))
    assert "Reached, but not beyond doubt: a distance within 10 % of the teacher's (8 % above it" in close
    assert "a ratio of 1.19" in close
    better = make_metrics(student=0.4)
    assert "Reached: a distance within 10 % of the teacher's (20 % below it)." in headline(better)
    assert headline(better)[-1] == "None of the teacher's rows reaches the distance of two steps."
    for threshold in ({"passed": None}, {"passed": False}, None):
        said = " ".join(headline({**better, "teacher_threshold": threshold}))
        assert "Not shown: a distance within 10 % of the teacher's (20 % below it), because the teacher" in said
        assert "Reached: a distance" not in said
    slow = make_metrics()
    slow["rows"][1]["seconds_per_sample"] = 0.1
    assert "Missed: 50 × fewer seconds than the teacher (25 ×)." in headline(slow)


def test_the_headline_compares_rows_of_one_guidance_scale():
    first, second = ([{**row, "guidance": scale} for row in make_metrics()["rows"]] for scale in (1.0, 2.0))
    guided = [{**row, "evaluations": 2 * row["evaluations"], "frechet": row["frechet"] / 4} for row in second]
    metrics = make_metrics(rows=[*first, *guided])
    assert headline(metrics) == headline(make_metrics())
    assert compared_teacher(metrics)["guidance"] == 1.0
    second = page_of(metrics).split("distances in a second network")[1].split("</table>")[0].split("<tr>")
    assert [line.count("<td>–</td>") for line in second[2:]] == [0] * 5 + [1] * 5 + [0]


def test_the_headline_of_models_without_teacher_or_two_steps_says_so():
    metrics = make_metrics()
    alone = {**metrics, "rows": metrics["rows"][2:]}
    assert "no teacher was measured" in headline(alone)[0]
    assert "two steps were not measured" in headline({**metrics, "rows": metrics["rows"][:3]})[0]
    assert len(headline(make_old_metrics())) == 5


def test_cautions_name_few_samples_and_a_bad_teacher():
    equal = make_metrics(num_samples=9_000)
    assert equal["floor"]["num"] == 9_000
    assert cautions(equal) == []
    (floor,) = cautions(make_metrics())
    assert floor.startswith("held-out data are 9000 samples and rows are of 10000: distances of fewer samples")
    few = make_metrics(
        num_samples=100,
        floor={"num": 100, "frechet": 1.0},
        features={"name": "own", "dimension": 128},
        remarks=["no second\x1bnetwork"],
        teacher_threshold={"passed": False, "accuracy": 0.9, "frechet_over_held_out": 21.0},
    )
    own, second, teacher, remark = cautions(few)
    assert own.startswith("only 100 samples for 128 feature dimensions")
    assert second.startswith("only 100 samples for 128 feature dimensions of efficientnet-lite0")
    assert remark == "no second\\x1bnetwork"
    assert "21 × that of held-out data" in teacher


def test_sample_rows_start_from_the_noise_that_generate_starts_from(evaluated_model):
    pipeline = scm_media.load(evaluated_model, "cpu")
    rows = make_sample_rows(pipeline, ("2", "teacher:3"), num=3, seed=5)
    assert [row.name for row in rows] == ["2 steps", "teacher, heun, 3 steps"]
    assert [[file.label for file in row.files] for row in rows] == [[file.label for file in rows[0].files]] * 2
    for row, arguments in zip(rows, ({"steps": 2}, {"steps": 3, "teacher": True}), strict=True):
        samples = pipeline(3, seed=5, batch_size=3, **arguments).samples
        for sample, file in zip(samples, row.files, strict=True):
            shown = Image.open(io.BytesIO(base64.b64decode(file.address.partition(",")[2])))
            pixels = torch.tensor(np.asarray(shown.convert("L"))) / 127.5 - 1
            assert (pixels - sample[0].clamp(-1, 1)).abs().max() < 0.01


def test_operations_are_shown_in_three_digits():
    shown = {999: "999", 1_000: "1 k", 1_254_000: "1.25 M", 999_600_000: "1 G", 126 * GIGA: "126 G", 0.0: "0"}
    assert {number: format_operations(number) for number in shown} == shown
