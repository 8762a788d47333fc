"""The skeleton cache: one HDF5 file with the clips of a data set, at their original lengths.

Two large datasets hold the clips one after the other, person by person within a clip, so that
one clip is one contiguous read. `docs/formats.md` describes the schema.
"""

from skelnas.data.cache.folds import Fold, FoldsBy
from skelnas.data.cache.journal import Journal
from skelnas.data.cache.reader import Cache
from skelnas.data.cache.storage import FORMAT, SCHEMA_VERSION, Clips, Storage
from skelnas.data.cache.verify import verify
from skelnas.data.cache.writer import CacheWriter

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Cache",
    "CacheWriter",
    "Clips",
    "Fold",
    "FoldsBy",
    "Journal",
    "Storage",
    "verify",
]
