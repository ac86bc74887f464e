"""An artifact loads only when it is whole and unaltered, and answers as it did at export."""

from pathlib import Path

import numpy as np
import pytest

from serving.artifact import MANIFEST, Artifact, ArtifactError, Draft, Json, equal, replay, verified


class Doubler:
    def __init__(self, artifact: Artifact) -> None:
        self.factor = float(artifact.array("factor")[0])

    def answer(self, request: Json) -> Json:
        return {"value": request["value"] * self.factor}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    draft = Draft(tmp_path / "model")
    draft.array("factor", np.array([2.0]))
    draft.json("item_ids", ["a", "b"])
    draft.text("mean", "tree")
    draft.golden(Doubler, [{"value": 1}, {"value": 3}])
    return draft.seal({"task": "recommend"})


def test_what_was_written_is_read(artifact: Artifact) -> None:
    whole = verified(artifact.folder)
    assert whole.array("factor")[0] == 2.0
    assert whole.json("item_ids") == ["a", "b"]
    assert whole.text("mean") == "tree"
    assert whole.manifest["task"] == "recommend"
    replay(whole, Doubler(whole))


def test_arrays_are_mapped_and_read_only(artifact: Artifact) -> None:
    array = artifact.array("factor")
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_draft_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "half")
    draft.array("factor", np.array([2.0]))
    with pytest.raises(ArtifactError, match=rf"has no {MANIFEST}"):
        verified(draft.folder)


@pytest.mark.parametrize("name", ["factor.npy", "item_ids.json", "golden.json"])
def test_an_altered_or_missing_file_is_refused(artifact: Artifact, name: str) -> None:
    path = artifact.folder / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=name):
        verified(artifact.folder)
    path.unlink()
    with pytest.raises(ArtifactError, match=name):
        verified(artifact.folder)


def test_another_answer_than_at_export_is_refused(artifact: Artifact) -> None:
    scorer = Doubler(artifact)
    scorer.factor = 2.1
    with pytest.raises(ArtifactError, match="golden request 0"):
        replay(artifact, scorer)


def test_a_pickled_array_is_refused(artifact: Artifact) -> None:
    np.save(artifact.folder / "evil.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        artifact.array("evil")


@pytest.mark.parametrize(
    ("left", "right", "agree"),
    [
        ({"a": [1.0]}, {"a": [1.000001]}, True),
        ({"a": [1.0]}, {"a": [1.001]}, False),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        ("x", "x", True),
        (None, 0, False),
    ],
)
def test_equality_allows_for_another_processors_sums(left: object, right: object, agree: bool) -> None:
    assert equal(left, right) is agree
