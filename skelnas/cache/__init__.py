"""The skeleton cache: one HDF5 file with the clips of a data set, at their own lengths.

The clips lie one after the other in two large datasets, person by person within a clip, so
that one clip is one contiguous read. `docs/formats.md` describes the schema.
"""

from skelnas.cache.clips import Clips
from skelnas.cache.journal import Journal
from skelnas.cache.reader import Cache
from skelnas.cache.schema import FORMAT, SCHEMA_VERSION
from skelnas.cache.storage import Storage
from skelnas.cache.verify import verify
from skelnas.cache.writer import CacheWriter

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Cache",
    "CacheWriter",
    "Clips",
    "Journal",
    "Storage",
    "verify",
]
