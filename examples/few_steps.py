"""Draws one sheet from a model: 1, 2 and 4 steps of the student, then the teacher, all from the same noise.

    python examples/few_steps.py image/fashion --out sheet.png

A row is one way of sampling; under it stand its network evaluations and the seconds that it took. Clip k of every
row starts from the same noise, so that a column shows one sample coming closer to what the teacher makes of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import scm_media


def main() -> None:
    """Parses the command line, draws and says where the sheet is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled name, a run folder or an exported folder")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="the file to write")
    parser.add_argument("-n", "--num", type=int, default=10, help="samples a row")
    parser.add_argument("--prompt", action="append", help="a text, for models of texts; several take turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    pipeline = scm_media.load(options.model, device=options.device)
    pipeline(1, steps=1)  # what only the first call costs is no part of the rows' seconds
    rows = []
    for steps, teacher in ((1, False), (2, False), (4, False), (None, True)):
        arguments = {"teacher": True} if teacher else {"steps": steps}
        if options.prompt:
            arguments["prompt"] = options.prompt
        out = pipeline(options.num, seed=options.seed, **arguments)
        seconds = out.seconds_model + out.seconds_decode
        what = "the teacher" if teacher else f"{steps} step{'s' if steps > 1 else ''}"
        text = f"{what}: {out.evaluations} evaluations a sample, {seconds:.2f} s for {options.num} samples"
        captions = [" ".join(map(str, label.values())) for label in out.labels]
        rows.append((pipeline.modality.preview(out.samples, captions, columns=options.num), text))
        print(text)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    stack(rows).save(options.out)
    print(f"the sheet is {options.out}")


def stack(rows: list[tuple[Image.Image, str]], line: int = 22) -> Image.Image:
    """Returns the pictures in a column, each with its line of text below it."""
    width = max(picture.width for picture, _ in rows)
    sheet = Image.new("RGB", (width, sum(picture.height + line for picture, _ in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    top = 0
    for picture, text in rows:
        sheet.paste(picture, (0, top))
        draw.text((6, top + picture.height + 2), text, fill="black", font=font)
        top += picture.height + line
    return sheet


if __name__ == "__main__":
    main()
