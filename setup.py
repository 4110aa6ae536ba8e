"""Where the packages lie; everything else stands in pyproject.toml.

``configs/``, ``recipes/`` and ``models/`` are top-level folders of the repository and are installed inside
``scm_media``: a mixture of discovery and of moved folders, which pyproject.toml alone cannot say.
"""

from setuptools import find_packages, setup

DATA_FOLDERS = ("configs", "recipes", "models")

setup(
    packages=[
        *find_packages(include=["scm_media", "scm_media.*", "modalities", "modalities.*"]),
        *(f"scm_media.{folder}" for folder in DATA_FOLDERS),
    ],
    package_dir={f"scm_media.{folder}": folder for folder in DATA_FOLDERS},
)
