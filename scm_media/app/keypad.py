"""This module has the keypad of actions: buttons, and the keys of the keyboard while the page shows it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

import gradio as gr

from scm_media.app.steering_keys import assign_keys, keys_of
from scm_media.pipeline.actions import NONE

SCRIPT = """
const held = new Set();
let waiting = null;
const busy = event => event.target.closest(
  'input, textarea, select, video, [contenteditable="true"]' + (event.key === ' ' ? ', button, a' : '')
);
const actionOf = event => {
  const pad = element.querySelector('[data-keys]');
  if (!pad || element.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return JSON.parse(pad.dataset.keys)[key] || null;
};
const press = (action, on) => element.querySelectorAll('[data-move]').forEach(each => {
  if (each.dataset.move === action) each.classList.toggle('pressed', on);
});
element.addEventListener('click', event => {
  const button = event.target.closest('[data-move]');
  if (!button) return;
  trigger('select', {move: button.dataset.move});
  button.blur();  // so that the space bar is a key of the keypad again
});
document.addEventListener('keydown', event => {
  const action = actionOf(event);
  if (!action || busy(event)) return;
  event.preventDefault();
  if (event.repeat) return;
  held.add(action);
  press(action, true);
  clearTimeout(waiting);
  waiting = setTimeout(() => trigger('select', {move: [...held].join('+')}), 50);  // keys that are pressed together
});
document.addEventListener('keyup', event => {
  const action = actionOf(event);
  if (!action) return;
  setTimeout(() => held.delete(action), 60);
  press(action, false);
});
window.addEventListener('blur', () => held.clear());
"""
STYLE = """
.pad { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 8px; }
.pad button { min-height: 52px; border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 4px 6px;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); cursor: pointer;
  display: flex; flex-direction: column; align-items: center; justify-content: center; touch-action: manipulation; }
.pad button:hover { background: var(--button-secondary-background-fill-hover); }
.pad button:active, .pad button.pressed { outline: 2px solid var(--color-accent); }
.pad small { opacity: .7; }
"""


def keypad(names: Sequence[str], elem_id: str) -> gr.HTML:
    """Returns the component; its event ``select`` has ``move``, an action or several with + between them."""
    return gr.HTML(show_keys(names), js_on_load=SCRIPT, css_template=STYLE, elem_id=elem_id)


def show_keys(names: Sequence[str]) -> str:
    """Returns HTML of a button for each action, and one for none, with the keys that stand for it."""
    keys = assign_keys(names)
    buttons = "".join(_button(name, keys_of(name, keys)) for name in (*names, NONE))
    listed = html.escape(json.dumps(keys), quote=True)
    return f'<div class="pad" data-keys="{listed}" role="group" aria-label="Actions">{buttons}</div>'


def _button(name: str, keys: str) -> str:
    word = html.escape(name, quote=True)
    return f'<button type="button" data-move="{word}"><span>{word}</span><small>{html.escape(keys)}</small></button>'
