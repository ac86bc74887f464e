"""The artifact: one folder that holds a model as data, and the only reader and writer of its layout.

``manifest.json``   what it is, from which data, the sha256 of every other file; written last: its presence means whole
``NAME.npy``        one array, memory-mapped by whoever reads it
``NAME.json``       lists such as ids and feature names
``NAME.txt``        LightGBM models
``NAME.onnx``       torch models
``golden.json``     requests with the answers recorded at export, replayed when the artifact is loaded
"""

import hashlib
import importlib.metadata
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

FORMAT_VERSION = 7
MANIFEST = "manifest.json"
LIBRARIES = ("shopkeeper", "numpy", "duckdb", "lightgbm", "implicit", "torch")

Json = dict[str, Any]


class ArtifactError(Exception):
    """An artifact that is incomplete, altered, or does not answer as it did when it was exported."""


class Scorer(Protocol):
    """What answers from an artifact, in training and in the service alike."""

    def answer(self, request: Json) -> Json:
        """The answer to one request, as it goes out over HTTP."""


class Artifact:
    """A folder read lazily: arrays come memory-mapped and read-only.

    folder : holds the files named in this module's docstring.
    Raises ArtifactError, when a file is asked for that is not there, naming it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest(self) -> Json:
        manifest: Json = self.json("manifest")
        return manifest

    def array(self, name: str) -> NDArray[Any]:
        return np.load(self._file(f"{name}.npy"), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    def json(self, name: str) -> Any:  # noqa: ANN401
        path = self._file(f"{name}.json")
        try:
            return orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise ArtifactError(f"{path} is not JSON: the artifact is damaged; train the model again") from error

    def text(self, name: str) -> str:
        return self._file(f"{name}.txt").read_text()

    def onnx(self, name: str) -> bytes:
        return self._file(f"{name}.onnx").read_bytes()

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ArtifactError(f"{self.folder} has no {name}: the artifact is incomplete; train the model again")
        return path


def verified(folder: Path) -> Artifact:
    """The artifact in a folder, after every checksum of its manifest was found right.

    Raises ArtifactError when the manifest is missing or of another format, or a file is missing or altered.
    """
    artifact = Artifact(folder)
    manifest = artifact.manifest
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} has artifact format {manifest.get('format_version')}, this release reads {FORMAT_VERSION}: "
            "train the model again"
        )
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise ArtifactError(f"{path} is missing or differs from its checksum: fetch or train the model again")
    return artifact


def replay(artifact: Artifact, scorer: Scorer) -> None:
    """Ask the golden requests again; raise ArtifactError for the first answer that differs from the recorded one."""
    for number, case in enumerate(artifact.json("golden")):
        answer = orjson.loads(orjson.dumps(scorer.answer(case["request"]), option=orjson.OPT_SERIALIZE_NUMPY))
        if not equal(answer, case["answer"]):
            raise ArtifactError(
                f"{artifact.folder} answers golden request {number} with {answer}, at export it was {case['answer']}"
            )


def equal(left: Any, right: Any) -> bool:  # noqa: ANN401
    """Whether two JSON values agree, floats within 1e-5 relative (another processor sums in another order)."""
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-5, abs_tol=1e-7)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


class Draft:
    """An artifact being written; it becomes loadable when ``seal`` has written the manifest.

    >>> draft = Draft(Path(getfixture("tmp_path")) / "model")
    >>> draft.array("scores", np.arange(3.0))
    >>> artifact = draft.seal({"task": "recommend"})
    >>> verified(artifact.folder).array("scores")[2]
    np.float64(2.0)
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder

    def array(self, name: str, values: NDArray[Any]) -> None:
        np.save(self.folder / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)

    def json(self, name: str, value: object) -> None:
        option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2
        (self.folder / f"{name}.json").write_bytes(orjson.dumps(value, option=option))

    def text(self, name: str, value: str) -> None:
        (self.folder / f"{name}.txt").write_text(value)

    def onnx(self, name: str, value: bytes) -> None:
        (self.folder / f"{name}.onnx").write_bytes(value)

    def golden(self, load: Callable[[Artifact], Scorer], requests: Sequence[Json]) -> None:
        """Record what the scorer answers to these requests from the files written so far."""
        scorer = load(Artifact(self.folder))
        self.json("golden", [{"request": request, "answer": scorer.answer(request)} for request in requests])

    def seal(self, description: Mapping[str, object]) -> Artifact:
        """Write the manifest: the description, library versions and the checksum of every file."""
        files = {path.name: sha256(path) for path in sorted(self.folder.iterdir())}
        manifest = {"format_version": FORMAT_VERSION, **description, "libraries": _libraries(), "files": files}
        self.json("manifest", manifest)
        return Artifact(self.folder)


def sha256(path: Path) -> str:
    """The digest of a file, as manifests have it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _libraries() -> dict[str, str]:
    return {name: version for name in LIBRARIES if (version := _installed(name))}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
