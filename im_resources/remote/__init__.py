"""Files beyond this machine: complete folders at any URL that fsspec knows (docs/files.md)."""

from im_resources.remote.faults import RemoteError
from im_resources.remote.folders import RemoteFolders
from im_resources.remote.place import Place

__all__ = ["Place", "RemoteError", "RemoteFolders"]
