import gc
import importlib.util
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import pytest

from features.errors import UserError
from serving import trees
from serving.artifact import ArtifactError
from serving.trees import Trees

N_FEATURES = 5


def matrix(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N_FEATURES))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


def booster(objective: str, **settings: object) -> lightgbm.Booster:
    rows = matrix(400)
    y = (np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) > 0.3).astype(float)
    parameters = {"objective": objective, "verbose": -1, "num_threads": 1, "num_leaves": 7, **settings}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, y), num_boost_round=20)


@pytest.fixture(scope="module", params=["binary", "poisson", "quantile", "regression"])
def pair(request):
    trained = booster(request.param)
    return trained, Trees.from_text(trained.model_to_string())


@pytest.mark.parametrize("n", [0, 1, 50, trees._ROWS_WORTH_THREADS])
def test_predicts_as_the_package_does(pair, n):
    trained, read = pair
    rows = matrix(n, seed=1)
    expected = trained.predict(rows, num_threads=1) if n else np.empty(0)
    assert np.array_equal(read.predict(rows), expected)


def test_raw_score_is_the_packages(pair):
    trained, read = pair
    rows = matrix(50, seed=1)
    assert np.array_equal(read.predict(rows, raw_score=True), trained.predict(rows, raw_score=True))


def test_contributions_are_the_packages_and_add_up(pair):
    trained, read = pair
    rows = matrix(50, seed=1)
    contributions = read.contributions(rows)
    assert np.array_equal(contributions, trained.predict(rows, pred_contrib=True))
    assert np.allclose(contributions.sum(axis=1), read.predict(rows, raw_score=True))


def test_one_row_is_the_batch(pair):
    _, read = pair
    rows = matrix(50, seed=2)
    assert [read.predict_one(row) for row in rows] == read.predict(rows).tolist()


def test_layout_and_dtype_of_the_input_do_not_matter(pair):
    _, read = pair
    rows = matrix(50, seed=3).astype(np.float32)
    expected = read.predict(rows.astype(np.float64))
    assert np.array_equal(read.predict(np.asfortranarray(rows)), expected)
    wide = np.repeat(rows.astype(np.float64), 2, axis=1)
    assert [read.predict_one(row[::2]) for row in wide] == expected.tolist()


def test_threads_share_one_model(pair):
    _, read = pair
    rows = matrix(400, seed=4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read.predict_one, rows)) == read.predict(rows).tolist()


def test_a_matrix_or_row_of_another_width_is_refused(pair):
    _, read = pair
    with pytest.raises(ValueError, match=r"shape \(2, 4\), the model reads \(n, 5\)"):
        read.predict(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"shape \(4,\), the model reads \(5,\)"):
        read.predict_one(np.zeros(4))


def test_text_that_is_no_model_is_refused():
    with pytest.raises(ArtifactError, match="LightGBM refused"):
        Trees.from_text("no model")


def test_a_model_with_several_outputs_is_refused():
    rows = matrix(60)
    dataset = lightgbm.Dataset(rows, np.arange(60) % 3)
    several = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, dataset, num_boost_round=2)
    with pytest.raises(ArtifactError, match="3 outputs"):
        Trees.from_text(several.model_to_string())


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trees._library.cache_clear()
    with pytest.raises(UserError, match="pip install lightgbm"):
        Trees.from_text("")
    monkeypatch.undo()
    trees._library.cache_clear()


def test_memory_is_given_back(monkeypatch):
    freed = []
    monkeypatch.setattr(trees, "_free", lambda *handles: freed.append(handles))
    read = Trees.from_text(booster("binary").model_to_string())
    handles = (read._booster, read._one_row)
    del read
    gc.collect()
    assert freed == [handles]
    monkeypatch.undo()
    trees._free(*handles)


def test_neither_pandas_nor_the_package_is_loaded(tmp_path):
    (tmp_path / "model.txt").write_text(booster("binary").model_to_string())
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from serving.trees import Trees
        Trees.from_text(Path(sys.argv[1]).read_text()).predict_one(np.zeros(5))
        assert not {"pandas", "lightgbm", "scipy"} & set(sys.modules), sorted(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "model.txt")], check=True)
