"""This module shows a sound or a clip over time, where the mouse or a finger chooses a stretch."""

from __future__ import annotations

import base64
import html
import io

import gradio as gr
from torch import Tensor

from scm_media.app.waveforms import draw_timeline, ticks
from scm_media.modality import SizeOption

SCRIPT = """
let first = null, shade = null;
const place = event => {
  const box = element.querySelector('.timeline').getBoundingClientRect();
  return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
};
const draw = last => {
  shade.style.left = 100 * Math.min(first, last) + '%';
  shade.style.width = 100 * Math.abs(last - first) + '%';
};
element.addEventListener('pointerdown', event => {
  const line = event.target.closest('.timeline.chosen');
  if (!line || event.button) return;
  event.preventDefault();
  first = place(event);
  shade = line.querySelector('.shade');
  line.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', event => { if (first !== null) draw(place(event)); });
element.addEventListener('pointercancel', () => { first = null; });
element.addEventListener('pointerup', event => {
  if (first === null) return;
  const last = place(event);
  trigger('select', {first, last: Math.abs(last - first) < 0.01 ? first : last});
  first = null;
});
"""
STYLE = """
.timeline { position: relative; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden; }
.timeline img { display: block; width: 100%; margin: 0; pointer-events: none; }
.timeline.wave img { height: 150px; }
.axis { position: relative; height: 1.4em; font-size: .8rem; color: var(--body-text-color); }
.axis span { position: absolute; transform: translateX(-50%); }
.axis span:first-child { transform: none; }
.axis b { position: absolute; right: 0; font-weight: 400; background: var(--body-background-fill); padding-left: 6px; }
.timeline.chosen { cursor: ew-resize; touch-action: pan-y; user-select: none; }
.shade { position: absolute; top: 0; bottom: 0; width: 0; background: rgba(194, 65, 12, .25); pointer-events: none; }
"""


def timeline(elem_id: str) -> gr.HTML:
    """Returns the component; its event ``select`` has ``first`` and ``last``, parts of the whole from 0 to 1."""
    return gr.HTML("", js_on_load=SCRIPT, css_template=STYLE, visible=False, elem_id=elem_id)


def show_timeline(sample: Tensor, option: SizeOption, stretch: tuple[float, float] | None) -> str:
    """Returns HTML of a sample ``(C, *S)`` with its stretch; without one, none can be chosen."""
    content = io.BytesIO()
    draw_timeline(sample, option, stretch).save(content, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    words = "the file over time" if stretch is None else f"{stretch[0]:g} to {stretch[1]:g} {option.unit} chosen"
    assert option.axis is not None
    kinds = ["timeline", *(["wave"] if sample.ndim < 4 else []), *([] if stretch is None else ["chosen"])]
    marks = ticks(sample.shape[option.axis] / option.rate)
    axis = "".join(f'<span style="left:{100 * part:.2f}%">{text}</span>' for part, text in marks if part < 0.97)
    return (
        f'<div class="{" ".join(kinds)}"><img src="{source}" alt="{words}"><div class="shade"></div></div>'
        f'<div class="axis">{axis}<b>{html.escape(option.unit)}</b></div>'
    )
