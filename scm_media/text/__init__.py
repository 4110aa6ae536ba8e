"""Text encoders: they turn prompts into the embeddings that networks are conditioned on.

``open_encoder`` opens a model of the package ``transformers``, and ``make_bank`` makes the file of embeddings that
``data=none`` and teachers take. ``TextEncoder`` is the interface of any other encoder.
"""

from __future__ import annotations

from scm_media.text.cleaning import clean_text
from scm_media.text.encoder import Encoded, TextEncoder, make_bank
from scm_media.text.transformers_encoder import find_digest, find_widths, open_encoder

__all__ = ["Encoded", "TextEncoder", "clean_text", "find_digest", "find_widths", "make_bank", "open_encoder"]
