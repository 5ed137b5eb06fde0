"""Soft bindings: what ties an image to its record when its metadata are gone.

`mark` stands between the finished pixels and their encoding; what it returns goes into the
manifest (`assertions`) and from there into the catalog (`bindings_of`).
"""

from pipeline.soft_binding.assertion import SoftBinding, assertions, bindings_of
from pipeline.soft_binding.mark import Marked, mark

__all__ = ["Marked", "SoftBinding", "assertions", "bindings_of", "mark"]
