"""The server answers HTTP without a browser: files, passwords, uploads, endpoints, many users at once."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from modalities.image.writing import read_metadata
from scm_media.app.context import App
from tests.app.client import Client
from tests.app.conftest import MOST_UPLOADED, Served

REPOSITORY = Path(__file__).parents[2]


def test_a_result_is_served_with_its_settings_inside(served: Served, tmp_path: Path) -> None:
    (record,) = served.client.generate(model="image/fashion", label="Bag", seed=3, first=2, steps="1")
    status, content = served.client.fetch(record["url"])
    (tmp_path / "x.png").write_bytes(content)
    assert status == 200
    found = read_metadata(tmp_path / "x.png")
    assert found == {key: value for key, value in record.items() if key != "url"}
    assert (found["seed"], found["index"], found["label"], found["steps"]) == (3, 2, "Bag", 1)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../../etc/passwd",
        "{root}/results/../../../etc/passwd",
        "{root}%2F..%2F..%2Fetc%2Fpasswd",
        "{root}/%2e%2e/%2e%2e/etc/passwd",
        "{root}/%252e%252e/%252e%252e/etc/passwd",
        "{root}",
        "{root}/results",
        "{repository}/pyproject.toml",
        "pyproject.toml",
        "./pyproject.toml",
        "~/.bashrc",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "https://example.org/x.png",
        "{link}",
        "{root}\\..\\..\\etc\\passwd",
        "{root}/%00/etc/passwd",
    ],
)
def test_no_path_outside_the_servers_folder_is_served(served: Served, path: str) -> None:
    root = served.app.folders.root
    link = root / "results" / "link.png"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    asked = path.format(root=root, repository=REPOSITORY, link=link)
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
        status, body = served.client.fetch(f"{route}{asked}")
        assert status in (403, 404), (route, asked, body[:200])
        assert b"root:" not in body and b"build-system" not in body


@pytest.mark.parametrize(
    "path", ["/gradio_api/proxy=https://example.org", "/gradio_api/monitoring", "/gradio_api/runs"]
)
def test_routes_without_use_are_closed(served: Served, path: str) -> None:
    assert served.client.fetch(path)[0] == 403


def test_the_page_may_load_nothing_from_elsewhere(served: Served) -> None:
    with served.client.opener.open(served.url) as answer:
        policy, page = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://(?!127\.0\.0\.1)', page)


def test_a_session_that_ended_leaves_nothing_to_be_served(served: Served) -> None:
    (record,) = served.client.generate(model="image/fashion", seed=1, steps="1")
    file = Path(record["url"].removeprefix("/gradio_api/file="))
    (session,) = (each for each, folder in served.app.folders._of.items() if file.is_relative_to(folder))
    served.app.folders.end(session)
    assert not file.exists()
    assert served.client.fetch(record["url"])[0] in (403, 404)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "<b>Nope</b>"}, "the model knows no label '<b>Nope</b>'; it knows class: T-shirt/top"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"num": 5}, "the number of samples must lie in 1 … 4 here, got 5"),
        ({"prompt": "a bag"}, "the model takes no text (its labels: class); leave the prompt out"),
        ({"walk": "7"}, 'a walk is written as "7 0.5"'),
        ({"walk": "7 1.5"}, "the fraction of a walk must lie in 0 … 1, got 1.5"),
        ({"steps": "two"}, "steps must be a whole number, got two"),
        ({"steps": "129"}, "the number of steps must lie in 1 … 128 here, got 129"),
        ({"sizes": "size=160"}, "25 times as large as the model's own, at most 16 times here"),
        ({"sizes": "size=nan"}, "size must be a finite number"),
        ({"model": "../../etc"}, "the app has no model '../../etc'; it has image/fashion"),
        ({"sizes": "frames=9"}, "the model has no size 'frames'; it has size"),
        ({"sizes": "size"}, "sizes are written as \"duration=3 fps=8\", got 'size'"),
    ],
)
def test_errors_are_words(served: Served, values: dict, message: str) -> None:
    event, data = served.client.call("generate", **{"model": "image/fashion", **values})
    assert event == "error"
    assert message in data["error"] and "Traceback" not in data["error"] and "\n" not in data["error"]


def test_an_unexpected_error_is_short_and_the_log_has_all(served: Served, monkeypatch, logged) -> None:
    def fail(self: App, request: object) -> None:
        raise KeyError("/secret/place")

    monkeypatch.setattr(App, "folder", fail)
    event, data = served.client.call("generate", model="image/fashion")
    assert event == "error" and "secret" not in data["error"]
    number = re.search(r"the server's log has it as (\w{6})$", data["error"])[1]
    assert any(f"error {number}" in line and "/secret/place" in line for line in logged)


def test_uploads_are_limited_in_size(served: Served) -> None:
    limit = int(MOST_UPLOADED * 1e6)
    assert served.client.upload("small.png", b"x" * (limit // 2))[0] == 200
    status, body = served.client.upload("large.png", b"x" * (limit + 1000))
    assert status == 413, body
    assert not [file for file in served.app.folders.root.rglob("*") if file.is_file() and file.stat().st_size > limit]


def test_names_of_uploads_stay_inside_the_servers_folder(served: Served) -> None:
    taken = []
    for name in (
        "../../../../../../tmp/escaped-scm-media.png",
        "/tmp/escaped-scm-media.png",
        "..",
        "a/b.png",
        "\u202egnp.png",
    ):
        status, body = served.client.upload(name, b"x")
        assert not Path("/tmp/escaped-scm-media.png").exists()
        if status == 200:
            taken.append(name)
            assert all(Path(each).resolve().is_relative_to(served.app.folders.root) for each in json.loads(body))
    assert "a/b.png" in taken


def test_a_password_stands_before_everything(locked: Served) -> None:
    (root,) = {locked.app.folders.root}
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "x.png").write_bytes(b"secret")
    stranger, friend = locked.client, Client(locked.url)
    paths = [
        "/config",
        "/gradio_api/info",
        f"/gradio_api/file={root}/results/x.png",
        "/gradio_api/queue/data?session_hash=a",
    ]
    for path in paths:
        status, body = stranger.fetch(path)
        assert status == 401 and b"secret" not in body, path
    assert stranger.upload("x.png", b"x")[0] == 401
    for path in (
        "/gradio_api/call/generate",
        "/gradio_api/call/v2/generate",
        "/gradio_api/queue/join",
        "/gradio_api/run/generate",
    ):
        assert stranger.fetch(path, b'{"data": ["image/fashion"]}')[0] == 401, path
    assert stranger.login("wrong horse") == 400 and stranger.fetch("/config")[0] == 401
    assert friend.login("correct horse") == 200
    assert friend.fetch(paths[0])[0] == 200 and friend.fetch(paths[2]) == (200, b"secret")


def test_twenty_users_at_once_get_what_they_asked_for(served: Served, tmp_path: Path) -> None:
    classes = list(served.app.models.pipeline("image/fashion").labels.names["class"])

    def use(number: int) -> tuple[int, dict, bytes]:
        client = Client(served.url)
        label = classes[number % len(classes)]
        (record,) = client.generate(model="image/fashion", label=label, seed=1000 + number, steps="1")
        return number, record, client.fetch(record["url"])[1]

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(use, range(20)))
    contents = set()
    for number, record, content in results:
        file = tmp_path / f"{number}.png"
        file.write_bytes(content)
        found = read_metadata(file)
        assert (found["seed"], found["label"]) == (1000 + number, classes[number % len(classes)])
        assert record["seed"] == found["seed"]
        contents.add(content)
    assert len(contents) == 20
    pipeline = served.app.models.pipeline("image/fashion")
    alone = pipeline(1, label=classes[7], seed=1007, steps=1).samples[0]
    (tmp_path / "7.png").write_bytes(results[7][2])
    assert float((pipeline.modality.read(tmp_path / "7.png") - alone).abs().max()) < 0.01


def test_nobody_goes_around_the_queue(served: Served) -> None:
    body = json.dumps({"data": ["image/fashion", "", "", 1, 1, "1", None, 0, "", ""], "session_hash": "hasty"}).encode()
    status, content = served.client.fetch("/gradio_api/run/generate", body)
    assert status == 404 and b"join the queue" in content


def test_calls_without_a_name_have_folders_of_their_own(served: Served) -> None:
    first, second = (SimpleNamespace(session_hash=None) for _ in range(2))
    assert served.app.folder(first) == served.app.folder(first) != served.app.folder(second)


def test_a_path_that_is_no_upload_is_not_taken_for_one(served: Served) -> None:
    (record,) = served.client.generate(model="image/fashion", seed=1, steps="1")
    config = json.loads(served.client.fetch("/config")[1])
    names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
    (drop,) = (
        number
        for number, each in enumerate(config["dependencies"])
        if any(names.get(target) == "scm-drop" for target, _ in each["targets"])
    )
    for path in (served.app.folders.root, served.app.folders.root / "results", record["url"].split("file=")[1]):
        data = [{"path": str(path), "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}]
        body = json.dumps({"data": data, "fn_index": config["dependencies"][drop]["id"], "session_hash": "thief"})
        assert served.client.fetch("/gradio_api/queue/join", body.encode())[0] == 200
        served.client.fetch("/gradio_api/queue/data?session_hash=thief")
        served.app.folders.end("thief")
    assert served.client.fetch(record["url"])[0] == 200


def test_a_full_queue_is_said_so(served: Served, monkeypatch) -> None:
    monkeypatch.setattr(served.server.blocks._queue, "max_size", 0)
    status, body = served.client.fetch("/gradio_api/call/v2/generate", b'{"model": "image/fashion"}')
    assert status == 503 and "queue is full" in body.decode().lower()


def test_the_curl_lines_of_the_docs_work(served: Served, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "app.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        ["bash", "-euc", script.replace("http://127.0.0.1:7860", served.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.png")
    assert read_metadata(file)["label"] == "Bag" and read_metadata(file)["seed"] == 7
    assert '"seed": 7' in done.stdout and '"label": "class=Bag"' in done.stdout


def test_settings_of_an_upload_make_the_same_file_again(served: Served) -> None:
    (record,) = served.client.generate(model="image/fashion", label="Coat", seed=9, first=3, steps="1", walk="4 0.25")
    content = served.client.fetch(record["url"])[1]
    (path,) = json.loads(served.client.upload("coat.png", content)[1])
    name, (found,) = served.client.call("settings", file=path)
    assert name == "complete" and found["settings"]["walk"] == "4 0.25" and "model image/fashion" in found["remark"]
    (again,) = served.client.generate(**found["settings"])
    assert served.client.fetch(again["url"])[1] == content


@pytest.mark.parametrize("file", ["/etc/passwd", "{root}/../../etc/passwd", "pyproject.toml", ""])
def test_settings_are_taken_from_uploads_alone(served: Served, file: str) -> None:
    event, data = served.client.call("settings", file=file.format(root=served.app.folders.root))
    assert event == "error" and data["error"].startswith("file must be what /gradio_api/upload returned")
