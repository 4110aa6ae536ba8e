"""This module says how the page looks: it has fonts of the system alone, and the cards of results."""

from __future__ import annotations

import gradio as gr

THEME = gr.themes.Default(
    primary_hue="indigo",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)

CSS = """
.scm-title { font-size: 1.4rem; margin: 0; }
.scm-results { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 12px; }
.scm-results.scm-large { grid-template-columns: minmax(0, 420px); }
.scm-results figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden;
  background: var(--block-background-fill); display: flex; flex-direction: column; }
.scm-results figure.scm-audio { grid-column: span 2; }
.scm-results.scm-large figure.scm-audio { grid-column: auto; }
.scm-results img, .scm-results video { width: 100%; display: block; image-rendering: pixelated; margin: 0; }
.scm-results img.scm-mel { image-rendering: auto; }
.scm-results audio { width: 100%; display: block; }
.scm-results figcaption { padding: 6px 10px 8px; display: flex; flex-direction: column; gap: 2px; font-size: .85rem;
  overflow-wrap: anywhere; }
.scm-results figcaption a { color: var(--link-text-color); text-decoration: underline; padding: 4px 0;
  align-self: flex-start; }
.scm-heading { font-size: 1.1rem; margin: 0; }
.scm-facts { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0; font-size: .9rem; }
.scm-empty { color: var(--body-text-color-subdued); margin: 8px 0; }
@media (max-width: 480px) { .scm-results figure.scm-audio { grid-column: 1 / -1; } }
"""
