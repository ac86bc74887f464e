"""Reads LightGBM models through the C library that the package brings, without the package, which would load pandas."""

import ctypes
import importlib.util
import weakref
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import UserError
from serving.artifact import ArtifactError

_FLOAT64 = 1
_ROW_MAJOR = 1
_TRANSFORMED, _RAW, _CONTRIBUTIONS = 0, 1, 3
_ALL_TREES = (0, -1)
_ONE_THREAD, _ALL_THREADS = b"num_threads=1", b"num_threads=0"
_ROWS_WORTH_THREADS = 10_000

_INT_OUT, _HANDLE_OUT = POINTER(c_int), POINTER(c_void_p)
_LENGTH_OUT, _DOUBLE_OUT = POINTER(c_int64), POINTER(c_double)
_SIGNATURES: dict[str, tuple[object, ...]] = {
    "LGBM_BoosterLoadModelFromString": (c_char_p, _INT_OUT, _HANDLE_OUT),
    "LGBM_BoosterGetNumClasses": (c_void_p, _INT_OUT),
    "LGBM_BoosterGetNumFeature": (c_void_p, _INT_OUT),
    "LGBM_BoosterPredictForMat": (c_void_p, c_void_p, *[c_int] * 7, c_char_p, _LENGTH_OUT, c_void_p),
    "LGBM_BoosterPredictForMatSingleRowFastInit": (c_void_p, *[c_int] * 5, c_char_p, _HANDLE_OUT),
    "LGBM_BoosterPredictForMatSingleRowFast": (c_void_p, c_void_p, _LENGTH_OUT, _DOUBLE_OUT),
    "LGBM_FastConfigFree": (c_void_p,),
    "LGBM_BoosterFree": (c_void_p,),
}


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    folders = (spec and spec.submodule_search_locations) or []
    paths = [path for folder in folders for path in Path(folder).rglob("lib_lightgbm.*")]
    if not paths:
        raise UserError("LightGBM's library lib_lightgbm is not installed and the model needs it: pip install lightgbm")
    library = ctypes.CDLL(str(paths[0]))
    library.LGBM_GetLastError.restype = c_char_p
    for name, arguments in _SIGNATURES.items():
        getattr(library, name).argtypes = arguments
    return library


def _call(name: str, *arguments: object) -> None:
    library = _library()
    if getattr(library, name)(*arguments) != 0:
        raise ArtifactError(f"LightGBM refused the model or its input: {library.LGBM_GetLastError().decode()}")


def _count(name: str, booster: c_void_p) -> int:
    number = c_int()
    _call(name, booster, byref(number))
    return number.value


def _free(booster: c_void_p, one_row: c_void_p) -> None:
    _call("LGBM_FastConfigFree", one_row)
    _call("LGBM_BoosterFree", booster)


class Trees:
    """A LightGBM model with one output; it answers as ``lightgbm.Booster.predict`` does and may be shared by threads.

    n_features : columns of the matrix that the model reads.
    """

    def __init__(self, booster: c_void_p) -> None:
        self.n_features = _count("LGBM_BoosterGetNumFeature", booster)
        self._booster = booster
        self._one_row = c_void_p()
        _call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            booster,
            _TRANSFORMED,
            *_ALL_TREES,
            _FLOAT64,
            self.n_features,
            _ONE_THREAD,
            byref(self._one_row),
        )
        self._predict_row = _library().LGBM_BoosterPredictForMatSingleRowFast
        weakref.finalize(self, _free, booster, self._one_row)

    @classmethod
    def from_text(cls, text: str) -> "Trees":
        """The model that ``lightgbm.Booster.model_to_string`` wrote.

        Raises UserError when LightGBM is not installed, ArtifactError when the text is no model or has several outputs.
        """
        booster = c_void_p()
        _call("LGBM_BoosterLoadModelFromString", text.encode(), byref(c_int()), byref(booster))
        n_outputs = _count("LGBM_BoosterGetNumClasses", booster)
        if n_outputs != 1:
            _call("LGBM_BoosterFree", booster)
            raise ArtifactError(f"the model has {n_outputs} outputs, one is allowed: train one model per output")
        return cls(booster)

    def predict(self, rows: NDArray[np.float64], raw_score: bool = False) -> NDArray[np.float64]:
        """The model's answer per row: probabilities, quantities or scores as the objective has it.

        rows : float64, shape (n, n_features), NaN where a value is missing
        raw_score : the sum of the leaves instead, before the objective's transformation
        Returns float64, shape (n,).
        Raises ValueError when the matrix has another number of columns.
        """
        return self._matrix(rows, _RAW if raw_score else _TRANSFORMED, 1)[:, 0]

    def contributions(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each feature adds to the raw score of each row (SHAP values); the last column is the expected score.

        rows : float64, shape (n, n_features)
        Returns float64, shape (n, n_features + 1); a row's sum is its raw score.
        Raises ValueError when the matrix has another number of columns.
        Source: Lundberg, Erion, Lee, "Consistent Individualized Feature Attribution for Tree Ensembles", 2018.
        """
        return self._matrix(rows, _CONTRIBUTIONS, self.n_features + 1)

    def predict_one(self, row: NDArray[np.float64]) -> float:
        """``predict`` of one row by the library's fast path, which sets nothing up per call.

        row : float64, shape (n_features,)
        Raises ValueError when the row has another length.
        """
        row = np.ascontiguousarray(row, np.float64)
        if row.shape != (self.n_features,):
            raise ValueError(f"the row has shape {row.shape}, the model reads ({self.n_features},)")
        answer = c_double()
        if self._predict_row(self._one_row, row.ctypes.data, byref(c_int64()), byref(answer)) != 0:
            raise ArtifactError(f"LightGBM refused the row: {_library().LGBM_GetLastError().decode()}")
        return answer.value

    def _matrix(self, rows: NDArray[np.float64], kind: int, width: int) -> NDArray[np.float64]:
        rows = np.ascontiguousarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"the matrix has shape {rows.shape}, the model reads (n, {self.n_features})")
        answers = np.empty((len(rows), width))
        _call(
            "LGBM_BoosterPredictForMat",
            self._booster,
            rows.ctypes.data,
            _FLOAT64,
            *rows.shape,
            _ROW_MAJOR,
            kind,
            *_ALL_TREES,
            _ALL_THREADS if len(rows) >= _ROWS_WORTH_THREADS else _ONE_THREAD,
            byref(c_int64()),
            answers.ctypes.data,
        )
        return answers
