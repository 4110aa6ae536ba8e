"""What is asked for is made, with progress, stops, locks, files and warnings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from scm_media.app.asking import Asked, describe_sizes, guides, offered_steps, parse_sizes, parse_walk, whole
from scm_media.app.context import App
from scm_media.app.controls import Controls
from scm_media.app.jobs import Cancelled, Jobs
from scm_media.app.making import make
from scm_media.app.media import Result, show
from scm_media.app.models import Models
from scm_media.app.settings import ServerSettings
from scm_media.app.showing import show_job


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(("image/fashion", "image/emoji-text", "audio/notes"), "cpu", "float32")


@pytest.fixture
def controls(tmp_path: Path, monkeypatch) -> Iterator[Controls]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = App(ServerSettings(models=("image/fashion",), out=tmp_path, device="cpu"))
    with gr.Blocks(analytics_enabled=False):
        yield Controls(app, live=False)
    app.close()


@pytest.mark.parametrize(("value", "number"), [(3, 3), (3.0, 3), (" 3 ", 3), ("-2", -2), (2**62, 2**62)])
def test_whole_numbers_of_pages_and_programs(value, number) -> None:
    assert whole("seed", value) == number


@pytest.mark.parametrize("value", [None, "", "3.5", 3.5, True, "1e3", "٣", "9" * 40, float("nan")])
def test_other_numbers_are_refused(value) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number, got"):
        whole("seed", value)


def test_sizes_and_walks_are_read() -> None:
    assert parse_sizes("duration=3, fps=8") == {"duration": 3.0, "fps": 8.0} and parse_sizes("") == {}
    assert parse_walk("7 0.5") == ("7", 0.5) and parse_walk(" ") is None
    with pytest.raises(ValueError, match="a walk is written as"):
        parse_walk("7")


def test_sizes_are_shown_as_the_model_has_them(models: Models) -> None:
    assert describe_sizes(models.pipeline("image/fashion")) == ("size=32", "size in pixels")
    assert describe_sizes(models.pipeline("audio/notes")) == ("duration=1.02", "duration in seconds")


def test_an_error_leaves_what_was_made_and_no_line(models: Models, tmp_path: Path) -> None:
    app, asked = SimpleNamespace(jobs=Jobs(), url=str), Asked(model="image/fashion", steps="1")

    def begin(stopped: threading.Event, report: object):
        yield from make(models, tmp_path, asked, most=1)
        raise ValueError("later")

    job = show_job(app, SimpleNamespace(session_hash="me"), 1, lambda *_, **__: None, begin)
    told = [next(job) for _ in range(3)]
    assert "1 of 1" in told[1][0] and "<figure" in told[1][1]
    assert told[2] == ("", gr.skip())
    with pytest.raises(ValueError, match="later"):
        next(job)
    assert app.jobs.stop("me") == 0


def test_steps_and_guidance_are_offered_where_networks_have_them(models: Models) -> None:
    assert offered_steps(models.pipeline("image/fashion")) == ["1", "2", "4", "teacher"]
    assert offered_steps(models.pipeline("image/fashion"), live=True) == ["1", "2", "4"]
    assert guides(models.pipeline("image/fashion")) == guides(models.pipeline("audio/notes")) == "teacher"


def test_results_come_in_batches_with_seed_and_label_inside(models: Models, tmp_path: Path) -> None:
    asked = Asked(model="audio/notes", label="family=guitar pitch=60", seed=2, num=5, steps="1")
    counts = [len(made.results) for made in make(models, tmp_path, asked, most=8)]
    assert counts == [4, 5]
    files = sorted(tmp_path.glob("*/*.wav"))
    read = models.pipeline("audio/notes").modality.read_metadata
    found = [read(file) for file in files]
    assert sorted(each["index"] for each in found) == [0, 1, 2, 3, 4] and {each["seed"] for each in found} == {2}
    assert all(each["label"].startswith("family=guitar pitch=60 ") for each in found)
    assert len(list(tmp_path.glob("*/view.png"))) == 5


def test_the_oldest_results_of_a_session_are_deleted_first(models: Models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scm_media.app.making.KEPT_RESULTS", 3)

    def seeds(first: int, num: int) -> list[tuple[int, int]]:
        """Returns seed and index of each file that is left, after samples of one more seed were made."""
        asked = Asked(model="image/fashion", seed=first, num=num, steps="1")
        *_, made = make(models, tmp_path, asked, most=8)
        read = models.pipeline("image/fashion").modality.read_metadata
        found = [read(file) for file in tmp_path.glob("*/*.png")]
        assert all(result.file.is_file() for result in made.results)
        return sorted((each["seed"], each["index"]) for each in found)

    assert seeds(1, 2) == [(1, 0), (1, 1)]
    assert seeds(2, 2) == [(1, 1), (2, 0), (2, 1)]
    assert seeds(3, 5) == [(3, index) for index in range(5)], "a request for more keeps all of its own"
    assert seeds(4, 1) == [(3, 3), (3, 4), (4, 0)]


def test_progress_rises_and_a_stop_ends_a_teacher_between_two_evaluations(models: Models, tmp_path: Path) -> None:
    stop, fractions = threading.Event(), []

    def report(done: float) -> None:
        fractions.append(done)
        if len(fractions) == 10:
            stop.set()

    asked = Asked(model="image/fashion", steps="teacher", seed=1)
    with pytest.raises(Cancelled):
        list(make(models, tmp_path, asked, most=1, stop=stop, report=report))
    assert len(fractions) == 10 and fractions == sorted(fractions) and fractions[1] == pytest.approx(1 / 63)
    assert not list(tmp_path.iterdir())
    network = models.pipeline("image/fashion").network("teacher")
    assert not network._forward_pre_hooks


def test_a_job_that_waits_for_its_model_can_be_stopped(models: Models, tmp_path: Path) -> None:
    jobs, raised = Jobs(), []

    def wait() -> None:
        with jobs.running("me") as stop:
            try:
                list(make(models, tmp_path, Asked(model="image/fashion"), most=1, stop=stop))
            except Cancelled as error:
                raised.append(error)

    with models.lock("image/fashion"):
        thread = threading.Thread(target=wait)
        thread.start()
        while not jobs.stop("me"):
            pass
        assert jobs.stop("another") == 0
        thread.join(10)
    assert len(raised) == 1 and jobs.stop("me") == 0


def test_a_cancel_reaches_what_was_asked_for_before_it_and_no_more(monkeypatch) -> None:
    jobs = Jobs()
    assert jobs.stop("me", clicked=10.0) == 0
    for session, clicked, stops in (("me", 9.0, True), ("me", 11.0, False), ("you", 9.0, False), ("me", inf, False)):
        with jobs.running(session, clicked) as stop:
            assert stop.is_set() == stops, (session, clicked)
    with jobs.running("me", 12.0) as stop:
        assert jobs.stop("me", clicked=13.0) == 1 and stop.is_set()
    jobs.end("me")
    with jobs.running("me", 9.0) as stop:
        assert not stop.is_set(), "a session that has ended is forgotten"
    monkeypatch.setattr("scm_media.app.jobs.MOST_CANCELLED", 2)
    for session in ("a", "b", "c"):
        jobs.stop(session, clicked=1.0)
    assert list(jobs._cancelled) == ["b", "c"]


def test_a_texts_warnings_belong_to_its_request(models: Models, tmp_path: Path) -> None:
    from scm_media.pipeline.texts import TextWarning

    pipeline = models.pipeline("image/emoji-text")
    original = pipeline.text.condition

    def warn(cond, texts):
        import warnings

        warnings.warn(f"{texts[0]!r} is unlike", TextWarning, stacklevel=2)
        return original(cond, texts)

    pipeline.text.condition = warn
    try:
        made = {}

        def one(prompt: str) -> None:
            asked = Asked(model="image/emoji-text", prompt=prompt, steps="1")
            (made[prompt],) = make(models, tmp_path, asked, most=1)

        threads = [threading.Thread(target=one, args=(text,)) for text in ("abacus", "adult")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        del pipeline.text.condition
    assert {text: each.warnings for text, each in made.items()} == {
        text: [f"{text!r} is unlike"] for text in ("abacus", "adult")
    }


def test_labels_and_names_are_shown_as_text() -> None:
    record = {"seed": 1, "index": 0, "label": '<img src=x onerror="alert(1)">', "prompt": "{{x}} ${y}"}
    text = show([Result(Path('/r/a"><script>.png'), record)], lambda file: f"gradio_api/file={file}")
    assert "<script>" not in text and "<img src=x" not in text and "onerror=&quot;" in text
    assert text.count("<img") == 1


def test_models_go_by_their_names_and_are_loaded_once(models: Models) -> None:
    assert models.pipeline("image/fashion") is models.pipeline("image/fashion")
    with pytest.raises(ValueError, match="the app has no model 'x'; it has image/fashion"):
        models.pipeline("x")
    named = Models(("/a/runs/main", "/b/runs/main", "image/fashion"), "cpu", "float32")
    assert named.names == ["main", "/b/runs/main", "image/fashion"]


def test_a_loaded_model_is_looked_at_while_another_request_uses_it(models: Models) -> None:
    pipeline, found = models.pipeline("image/fashion"), []
    with models.lock("image/fashion"):
        thread = threading.Thread(target=lambda: found.append(models.pipeline("image/fashion")), daemon=True)
        thread.start()
        thread.join(5)
        assert found == [pipeline]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": 5}, "label must be a text, got 5"),
        ({"label": ["Bag"]}, r"label must be a text, got \['Bag'\]"),
        ({"sizes": 3}, "sizes must be a text, got 3"),
        ({"guidance": "high"}, "guidance must be a number, got high"),
        ({"guidance": True}, "guidance must be a number, got True"),
        ({"walk": (7, "x")}, "the fraction of a walk must be a number, got x"),
        ({"model": ["image/fashion"]}, "the app has no model"),
    ],
)
def test_values_of_other_kinds_are_refused_in_words(models: Models, tmp_path: Path, values, message) -> None:
    with pytest.raises(ValueError, match=message):
        next(make(models, tmp_path, Asked(**{"model": "image/fashion", "steps": "1", **values}), most=1))
    with pytest.raises(ValueError, match="a walk must be a text, got 3"):
        parse_walk(3)


def test_the_guidance_that_is_sent_fits_the_model(controls: Controls, monkeypatch) -> None:

    def guidance(steps: str, scale: float) -> float | None:
        return controls.asked(["image/fashion", "", "any", None, None, None, 0, steps, scale]).guidance

    assert guidance("2", 1.25) is None and guidance("teacher", 1.25) == 1.25
    monkeypatch.setattr("scm_media.app.controls.guides", lambda pipeline: "both")
    assert guidance("2", 1.0) is None and guidance("2", 1.5) == 1.5 and guidance("teacher", 1.0) is None


def test_a_class_called_any_can_be_chosen(controls: Controls, monkeypatch) -> None:
    names = controls.app.models.pipeline("image/fashion").labels.names

    def labels(value: str) -> dict[str, str]:
        return dict(controls.asked(["image/fashion", "", value, None, None, None, 0, "2", 1.0]).labels)

    assert labels("any") == {} and labels("Bag") == {"class": "Bag"}
    monkeypatch.setitem(names, "class", ("any", *names["class"]))
    label = controls.update("image/fashion")[1]
    assert label["choices"][:3] == ["(any)", "any", "T-shirt/top"] and label["value"] == "(any)"
    assert labels("(any)") == {} and labels("any") == {"class": "any"}
