"""Landing folders for tests: one of this machine, and one of an object store in memory."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec

from im_assets.landing.folder import Folder, open_folder
from im_resources.study import LandingSettings, Study, load_study


@dataclass
class Place:
    """A landing folder, and how a stranger puts files there."""

    url: str

    @property
    def folder(self) -> Folder:
        return open_folder(self.url)

    def put(self, name: str, content: bytes) -> None:
        """Write ``<target>/<file>``; local files as a whole, like a rename would."""
        if "://" not in self.url:
            path = f"{self.url}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{self.url}/.{uuid.uuid4().hex}"
            Path(temporary).write_bytes(content)
            os.replace(temporary, path)
        else:
            files, path = fsspec.url_to_fs(self.url)
            files.pipe_file(f"{path}/{name}", content)

    def files(self) -> dict[str, bytes]:
        """Everything that lies there."""
        if "://" not in self.url:
            top = Path(self.url)
            return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        files, path = fsspec.url_to_fs(self.url)
        files.invalidate_cache()
        return {name.removeprefix(path + "/"): files.cat_file(name) for name in files.find(path)}


def local(folder: Path) -> Place:
    folder.mkdir(parents=True, exist_ok=True)
    return Place(str(folder))


def in_memory() -> Place:
    return Place(f"memory://{uuid.uuid4().hex}")


KINDS: dict[str, Callable[[Path], Place]] = {
    "local": lambda folder: local(folder / "landing"),
    "remote": lambda _: in_memory(),
}


def landing_study(place: Place, **settings: object) -> Study:
    """The demo study with a landing folder; its sources: careful, howto, rambling, terse."""
    landing = LandingSettings.model_validate({"folder": place.url, "settle_seconds": 1, **settings})
    return load_study("demo").model_copy(update={"landing": landing})


def rows(*instructions: str) -> bytes:
    """JSON lines; an empty instruction is a row that cannot be used."""
    lines: list[Mapping[str, object]] = [
        {"instruction": text, "output": f"About {text}."} if text else {"output": 7}
        for text in instructions
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
