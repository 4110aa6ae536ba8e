"""Property tests run alike everywhere: the same examples every time, however slow the machine."""

from hypothesis import settings

repeatable = settings(deadline=None, database=None, derandomize=True, max_examples=200)
