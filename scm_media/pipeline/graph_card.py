"""The README of a folder of graphs: how a user samples with them, without this package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scm_media.pipeline.card import markdown_code, markdown_text
from scm_media.pipeline.graphs import TEXT_KINDS

KINDS = {
    "latent": "noise of standard deviation sigma_data at first, later the noised x0",
    "time": "the time of the step in radians",
    "label": "",
    "tokens": "the embeddings of the text's tokens, zeros behind them; zeros for no text",
    "token_mask": "true for each token of the text; false everywhere for no text",
    "pooled": "the embedding of the whole text; zeros for no text",
    "guidance": "the guidance scale that the student was distilled for",
    "actions": "numbers of each frame",
    "given": "the given part of the latent, zero elsewhere; zeros to sample from noise alone",
    "mask": "one where the latent is given; zeros to sample from noise alone",
}
OPENING = {
    "onnx": """import numpy as np, onnxruntime as ort

def run(file, /, **inputs):
    (output,) = ort.InferenceSession(file).run(None, inputs)
    return output
""",
    "torch": """import numpy as np, torch

def run(file, /, **inputs):
    named = {name: torch.from_numpy(each) for name, each in inputs.items()}
    first = [named.pop(name) for name in ("latents", "x_t", "t") if name in named]
    with torch.no_grad():
        return torch.export.load(file).module()(*first, *([named] if len(first) == 2 else [])).numpy()
""",
}


def format_graph_card(manifest: Mapping[str, Any], format: str) -> str:
    """Returns the text of the card for a manifest; format: "onnx" or "torch"."""
    network, decoder = manifest["network"], manifest["decoder"]
    lines = [
        f"# {markdown_text(manifest['name'])}",
        "",
        f"A consistency model of {manifest['modality']} samples that runs without scm-media.",
        "`manifest.json` has all that this page says, for programs.",
    ]
    lines += ["", *_table(("input", "type", "shape", "is"), [_input_row(each) for each in network["inputs"]])]
    lines += ["", f"`{network['file']}` returns `x0`, the denoised latent of the shape of `x_t`{_limit(network)}."]
    if decoder is None:
        lines.append(f"**There is no decoder**: {markdown_text(manifest['decoder_left_out'])}.")
    else:
        shape = ", ".join(map(str, ["batch", *manifest["sample_shape"]]))
        lines.append(f"`{decoder['file']}` turns `latents` into `samples` ({shape}) in [-1, 1]{_limit(decoder)}.")
    for key, unit in (("sample_rate", "samples a second"), ("frame_rate", "frames a second")):
        lines += [f"Samples have {manifest[key]:g} {unit}."] if key in manifest else []
    if manifest["texts"] is not None:
        lines += ["", _texts(manifest["texts"])]
    steps = [(str(num), ", ".join(f"{time:.6f}" for time in times)) for num, times in manifest["steps"].items()]
    lines += ["", *_table(("steps", "times in radians"), steps), "", "```python", OPENING[format]]
    lines += [*_loop(manifest), "```", "", _checked(manifest)]
    for key, words in (("data", "Training data"), ("licence", "Their licence")):
        lines += ["", f"{words}: {markdown_text(manifest[key])}."] if manifest[key] else []
    return "\n".join(lines) + "\n"


def _limit(part: Mapping[str, Any]) -> str:
    return "" if part["batch"] == "any" else f", for at most {part['batch']} at once"


def _texts(texts: Mapping[str, Any]) -> str:
    encoder = texts["encoder"]
    return (
        f"`{texts['prompts']}` lists {texts['number']} texts, and `{texts['embeddings']}` has their `tokens`, "
        f"`token_mask` and `pooled`, one row a text. Any other text needs the text encoder, "
        f"`{markdown_code(str(encoder.get('name', 'not known')))}`, with {encoder['max_tokens']} tokens at most."
    )


def _text_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Returns the lines that put the first text's embeddings in the place of no text."""
    texts = manifest["texts"]
    if texts is None or not texts["number"]:
        return []
    names = [each["name"] for each in manifest["network"]["inputs"] if each["kind"] in TEXT_KINDS]
    return [
        f'texts, row = np.load("{texts["embeddings"]}"), 0  # of {texts["prompts"]}',
        f"for name in {json.dumps(names)}:",
        "    inputs[name][0, : len(texts[name][row])] = texts[name][row]",
    ]


def _loop(manifest: Mapping[str, Any]) -> list[str]:
    network, decoder, shape = manifest["network"], manifest["decoder"], manifest["latent_shape"]
    inputs = [_example_value(each) for each in network["inputs"][2:]]
    times = manifest["steps"][str(manifest["default_steps"])]
    lines = [
        f"sigma_data, shape = {manifest['sigma_data']:g}, {(1, *shape)}",
        f"inputs = {{{', '.join(inputs)}}}",
        *_text_lines(manifest),
        f"for i, t in enumerate({json.dumps(times)}):",
        "    x_t = np.random.standard_normal(shape).astype(np.float32) * sigma_data",
        "    if i:",
        "        x_t = np.float32(np.cos(t)) * x0 + np.float32(np.sin(t)) * x_t",
        f'    x0 = run("{network["file"]}", x_t=x_t, t=np.full(1, t, np.float32), **inputs)',
    ]
    if decoder is not None:
        lines.append(f'samples = run("{decoder["file"]}", latents=x0)')
    return lines


def _example_value(entry: Mapping[str, Any]) -> str:
    shape = (1, *entry["shape"][1:])
    if entry["kind"] == "label":
        value = 0 if entry.get("classes") else (entry["range"] or [0.0])[0]
    else:
        value = entry["default"]
    dtype = "bool_" if entry["dtype"] == "bool" else entry["dtype"]
    return f"{json.dumps(entry['name'])}: np.full({shape}, {value!r}, np.{dtype})"


def _input_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    words = KINDS[entry["kind"]]
    if classes := entry.get("classes"):
        shown = ", ".join(f"{number} {name}" for number, name in enumerate(classes[:20]))
        more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
        none = "" if entry["null"] is None else f"; {entry['null']} for no label"
        words = f"the class: {shown}{more}{none}{_untrained(entry)}"
    elif entry["kind"] == "label":
        low_high = "" if entry["range"] is None else f" from {entry['range'][0]:g} to {entry['range'][1]:g}"
        words = f"a number{low_high}; not a number for no label{_untrained(entry)}"
    elif names := entry.get("names"):
        words = f"{words}: {', '.join(names)}"
    return (
        f"`{markdown_code(entry['name']).replace('|', chr(92) + '|')}`",
        entry["dtype"],
        str(tuple(entry["shape"])).replace("'", ""),
        markdown_text(words),
    )


def _untrained(entry: Mapping[str, Any]) -> str:
    return ", which it was never trained for" if entry["label_dropout"] == 0 else ""


def _checked(manifest: Mapping[str, Any]) -> str:
    parts = {"network": manifest["network"], "decoder": manifest["decoder"]}
    found = [
        f"{part} {each['difference']:.1e} (allowed: {each['tolerance']:.0e})" for part, each in parts.items() if each
    ]
    return f"Largest difference from PyTorch when these files were made, over the largest value: {', '.join(found)}."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
