"""Hydra groups, installed as scm_media.configs."""
