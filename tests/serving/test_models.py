import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from doubling import LOADERS, Doubler, champion_of, damage_array, export

from features.errors import UserError
from serving import models
from serving.artifact import ArtifactError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return export(tmp_path_factory.mktemp("models") / "export")


def test_the_champion_answers_as_exported_from_mapped_arrays(tmp_path, source):
    champion_of(tmp_path, source)
    model = models.load_champions(tmp_path, "mini", LOADERS).served["recommend"]
    assert model.scorer.answer({"index": 0}) == {"doubled": 2.0}
    assert isinstance(model.scorer.factors, np.memmap)
    assert (model.task, model.version, model.manifest["model"]) == ("recommend", "1", "doubler")


def test_ages_count_from_training_and_from_the_end_of_the_data(tmp_path):
    now = datetime.now(UTC)
    created, until = now - timedelta(hours=1), (now - timedelta(days=2)).date()
    source = export(tmp_path / "export", created_at=created.isoformat(), window={"from": None, "until": f"{until}"})
    champion_of(tmp_path, source)
    model = models.load_champions(tmp_path, "mini", LOADERS).served["recommend"]
    assert model.until == datetime(until.year, until.month, until.day, tzinfo=UTC)
    assert 3600 <= model.age_s < 3610
    assert 2 * 86_400 <= model.staleness_s < 3 * 86_400 + 10


def test_a_task_without_champion_is_absent_with_the_command_that_helps(tmp_path, source):
    champion_of(tmp_path, source)
    loaded = models.load_champions(tmp_path, "mini", LOADERS)
    assert list(loaded.served) == ["recommend"]
    assert "promote demand" in loaded.absent["demand"]


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def cut_manifest(folder):
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_array, remove_manifest, cut_manifest, shutil.rmtree])
def test_a_broken_champion_is_absent_and_the_others_serve(tmp_path, source, damage):
    champion_of(tmp_path, source)
    champion_of(tmp_path, export(tmp_path / "other", task="demand"), task="demand")
    damage(models.champion(tmp_path, "mini", "recommend"))
    loaded = models.load_champions(tmp_path, "mini", LOADERS)
    assert list(loaded.served) == ["demand"]
    assert loaded.absent["recommend"]


def test_a_champion_that_answers_otherwise_than_at_export_is_absent(tmp_path, source):
    class Tripler(Doubler):
        def answer(self, request):
            return {"doubled": self.factors[request["index"]] * 3}

    champion_of(tmp_path, source)
    loaded = models.load_champions(tmp_path, "mini", {"recommend": Tripler})
    assert "golden request 0" in loaded.absent["recommend"]


def test_a_model_of_another_task_is_absent(tmp_path):
    champion_of(tmp_path, export(tmp_path / "export", task="demand"))
    assert "demand" in models.load_champions(tmp_path, "mini", LOADERS).absent["recommend"]


def test_a_loader_that_fails_leaves_its_reason(tmp_path, source):
    def fails(artifact):
        raise ImportError("no such library")

    champion_of(tmp_path, source)
    assert "no such library" in models.load_champions(tmp_path, "mini", {"recommend": fails}).absent["recommend"]


def test_publishing_again_changes_nothing(tmp_path, source):
    folder = models.publish(tmp_path, "mini", "recommend", "1", source)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert models.publish(tmp_path, "mini", "recommend", "1", source) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_publishing_repairs_a_damaged_copy(tmp_path, source):
    champion_of(tmp_path, source)
    damage_array(models.champion(tmp_path, "mini", "recommend"))
    models.publish(tmp_path, "mini", "recommend", "1", source)
    assert "recommend" in models.load_champions(tmp_path, "mini", LOADERS).served


@pytest.mark.parametrize("damage", [damage_array, remove_manifest])
def test_a_damaged_source_is_refused_and_leaves_nothing(tmp_path, source, damage):
    source = shutil.copytree(source, tmp_path / "export")
    damage(source)
    with pytest.raises(ArtifactError):
        models.publish(tmp_path, "mini", "recommend", "1", source)
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]


def test_the_champion_moves_and_moves_back(tmp_path):
    for version, value in (("1", 1.0), ("2", 2.0)):
        champion_of(tmp_path, export(tmp_path / f"export{version}", value), version)
    assert models.champion(tmp_path, "mini", "recommend").name == "2"
    models.point_champion(tmp_path, "mini", "recommend", "1")
    loaded = models.load_champions(tmp_path, "mini", LOADERS).served["recommend"]
    assert (loaded.version, loaded.scorer.answer({"index": 1})) == ("1", {"doubled": 2.0})
    link = tmp_path / "models" / "mini.recommend" / "champion"
    assert not link.readlink().is_absolute()
    assert sorted(path.name for path in link.parent.iterdir()) == ["1", "2", "champion", "verdict.json"]


def test_only_a_published_version_can_be_champion(tmp_path, source):
    champion_of(tmp_path, source)
    with pytest.raises(UserError, match=r"Version 7 of mini\.recommend .* there: 1$"):
        models.point_champion(tmp_path, "mini", "recommend", "7")
    assert models.champion(tmp_path, "mini", "recommend").name == "1"


def test_no_champion_is_none(tmp_path):
    assert models.champion(tmp_path, "mini", "recommend") is None
