"""Written videos play in a browser: a page with a <video> whose time goes on and whose duration is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue

import pytest

from modalities.video import VideoModality
from tests.modalities.video.files import moving

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chromium-headless-shell")
SECONDS = 90.0
PAGE = """<video muted src="/clip{suffix}"></video><script>
const video = document.querySelector("video"), times = [];
const tell = (what) => fetch("/told", {{method: "POST", body: JSON.stringify({{what, times, duration: video.duration,
  width: video.videoWidth, height: video.videoHeight, error: video.error && video.error.message}})}});
setInterval(() => times.push(video.currentTime), 50);
video.onerror = () => tell("error");
video.onended = () => {{ times.push(video.currentTime); tell("ended"); }};
video.play().catch((error) => tell(String(error)));
</script>"""


@pytest.fixture
def browser():
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)}); on Debian: apt-get install chromium")
    return found


def played(browser: str, folder, suffix: str) -> dict:
    """Returns what the page reports of the clip once it has ended."""
    told: Queue = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            clip = self.path.startswith("/clip")
            content = (folder / f"clip{suffix}").read_bytes() if clip else PAGE.format(suffix=suffix).encode()
            self.send_response(200 if clip or self.path == "/" else 404)
            self.send_header("Content-Type", f"video/{suffix[1:]}" if clip else "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required")
    flags += (f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--disable-dev-shm-usage", "--mute-audio")
    flags += ("--disable-background-networking", "--disable-component-update", "--disable-sync")  # it asks nobody
    with subprocess.Popen(
        [browser, *flags, f"http://127.0.0.1:{server.server_port}/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            return told.get(timeout=SECONDS)
        except Empty:
            raise AssertionError(f"{browser} told nothing of the clip within {SECONDS:g} s") from None
        finally:
            process.terminate()
            server.shutdown()
            server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "size"), [(".mp4", (64, 64)), (".mp4", (49, 63)), (".webm", (49, 63))])
def test_a_clip_plays_to_its_end(tmp_path, browser, suffix, size):
    sample = moving(16, 64)[..., : size[0], : size[1]]
    VideoModality(num_frames=16, frame_rate=8.75).write(tmp_path / f"clip{suffix}", sample, {"recipe": "test"})
    told = played(browser, tmp_path, suffix)
    assert told["what"] == "ended", told
    assert told["duration"] == pytest.approx(16 / 8.75, abs=0.02)
    even = suffix == ".mp4"
    assert (told["height"], told["width"]) == tuple(side + side % 2 * even for side in size)
    times = told["times"]
    assert times == sorted(times) and times[-1] == pytest.approx(told["duration"], abs=0.02)
    assert len({round(time, 2) for time in times}) > 8  # it goes on, and does not jump to the end
