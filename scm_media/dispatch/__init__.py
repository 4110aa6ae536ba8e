"""Carries value and tangent through unmodified modules of PyTorch in one pass."""

from scm_media.dispatch.tensor import TangentError, TangentTensor, carry, find_fallbacks

__all__ = ["TangentError", "TangentTensor", "carry", "find_fallbacks"]
