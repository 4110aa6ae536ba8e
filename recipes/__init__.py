"""Whole recipes, installed as scm_media.recipes."""
