"""Bundled models, installed as scm_media.models."""
