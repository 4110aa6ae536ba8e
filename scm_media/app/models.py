"""This module loads the models of the app when they are first used, and gives each to one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from scm_media.pipeline import Pipeline, load
from scm_media.pipeline.export import base_name


class Models:
    """This has the models by the names that users choose from; a folder or file goes by its name without the path."""

    def __init__(self, sources: Sequence[str], device: str, precision: str) -> None:
        self.device, self.precision = device, precision
        self._sources: dict[str, str] = {}
        for source in sources:
            name = base_name(source.rstrip("/") or source)
            self._sources[source if name in self._sources else name] = source
        self._pipelines: dict[str, Pipeline] = {}
        self._locks = {name: threading.RLock() for name in self._sources}

    @property
    def names(self) -> list[str]:
        """Returns the names, in the order in which the models were given."""
        return list(self._sources)

    def lock(self, name: str) -> threading.RLock:
        """Returns the lock that is held while a model is used; raises ValueError for a name that is not there."""
        return self._locks[self._known(name)]

    def pipeline(self, name: str) -> Pipeline:
        """Returns a model, which is loaded the first time; raises ValueError for a name that is not there.

        A model that is loaded is returned at once, also while another request holds its lock.
        """
        if (loaded := self._pipelines.get(self._known(name))) is not None:
            return loaded
        with self.lock(name):
            if name not in self._pipelines:
                self._pipelines[name] = load(self._sources[name], self.device, self.precision)
            return self._pipelines[name]

    def _known(self, name: str) -> str:
        if not isinstance(name, str) or name not in self._sources:
            raise ValueError(f"the app has no model {str(name)[:100]!r}; it has {', '.join(self._sources)}")
        return name
