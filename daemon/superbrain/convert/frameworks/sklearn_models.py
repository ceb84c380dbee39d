"""scikit-learn pipelines, with XGBoost and LightGBM inside or alone, saved with joblib or pickle.

Loading one runs code that is in the file, so it must be trusted. With one input, that is the table
of all features; with several, each is a column of a DataFrame, as skl2onnx has it. Probabilities
are a table (`zipmap=False`): a list of maps could not be served.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common import data_types
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.linear_model import SGDOneClassSVM
from sklearn.preprocessing import MaxAbsScaler, RobustScaler, StandardScaler

from .talk import Array, Order, Refused, Tensor

PACKAGES = ("scikit-learn", "skl2onnx", "onnxmltools", "xgboost-cpu", "lightgbm")
OPSET_ML = 3
_TYPES = {
    "FP32": data_types.FloatTensorType,
    "FP64": data_types.DoubleTensorType,
    "INT64": data_types.Int64TensorType,
    "INT32": data_types.Int32TensorType,
    "BOOL": data_types.BooleanTensorType,
    "BYTES": data_types.StringTensorType,
}


class SklearnModel:
    """A fitted estimator or pipeline."""

    def __init__(self, order: Order) -> None:
        if not order.trusted:
            raise Refused("PICKLE_NOT_TRUSTED", "expected to be told that the pickle is trusted")
        self.estimator = _read(order.source)
        self.last = self.estimator[-1] if hasattr(self.estimator, "steps") else self.estimator
        self.inputs = order.inputs or [_table(self.estimator)]
        self.outputs, self._ask = _outputs(self.estimator, self.last)
        self._columns = _columns(self.last)
        self.notes: list[str] = []
        for one in self.inputs:
            if one.datatype not in _TYPES:
                raise Refused(
                    "FRAMEWORK_TYPE",
                    f"input {one.name!r}: expected one of {', '.join(_TYPES)} for scikit-learn, "
                    f"found {one.datatype}",
                )

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        table = self._table_of(inputs)
        answers = [np.asarray(getattr(self.estimator, name)(table)) for name in self._ask]
        return [
            _as_declared(name, array, column=name in self._columns)
            for name, array in zip(self.outputs, answers, strict=True)
        ]

    def export(self, path: Path, opset: int, _: dict[str, list[int]]) -> None:
        options: dict[int, dict[str, object]] = {}
        for one in _steps(self.estimator):
            _register(one)
            # Multiplied by the inverse, a value may fall on the other side of a tree's threshold.
            if isinstance(one, (MaxAbsScaler, RobustScaler, StandardScaler)):
                options[id(one)] = {"div": "div"}
        if is_classifier(self.last):
            options[id(self.estimator)] = {"zipmap": False}
        graph = to_onnx(
            self.estimator,
            initial_types=[
                (one.name, _TYPES[one.datatype](_open(one.shape))) for one in self.inputs
            ],
            options=options,
            target_opset={"": min(opset, 21), "ai.onnx.ml": OPSET_ML},
        )
        path.write_bytes(graph.SerializeToString(deterministic=True))

    def _table_of(self, inputs: dict[str, Array]) -> Any:
        columns = getattr(self.estimator, "feature_names_in_", None)
        if len(self.inputs) == 1 and columns is None:
            return next(iter(inputs.values()))
        pandas = importlib.import_module("pandas")
        if len(self.inputs) == 1:
            return pandas.DataFrame(next(iter(inputs.values())), columns=columns)
        return pandas.DataFrame({name: array.reshape(-1) for name, array in inputs.items()})


def load(order: Order) -> SklearnModel:
    """Unpickle a model: this runs whatever code the file asks for."""
    return SklearnModel(order)


def _read(source: str) -> Any:
    try:
        found = joblib.load(source)
    except Exception as error:  # unpickling may raise anything at all
        raise Refused(
            "FRAMEWORK_LOAD",
            f"expected a fitted model saved with joblib or pickle, found: "
            f"{type(error).__name__}: {error}",
            "Save it with this environment's versions: superbrain convert --environments --json",
        ) from error
    if not any(hasattr(found, name) for name in ("predict", "transform")):
        raise Refused(
            "FRAMEWORK_LOAD",
            f"expected a model with predict or transform, found {type(found).__name__}",
        )
    return found


def _table(estimator: Any) -> Tensor:
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise Refused(
            "INPUTS_UNKNOWN",
            "expected to be told the inputs, for the model does not know its number of features",
            "Say it: --input features=float32[rows,13]",
        )
    return Tensor("features", "FP32", ["batch", int(width)])


def _outputs(estimator: Any, last: Any) -> tuple[list[str], list[str]]:
    """The graph's outputs, and the method of the estimator that answers each."""
    has = [name for name in ("predict_proba", "decision_function") if hasattr(estimator, name)]
    if is_outlier_detector(last):
        return ["label", "scores"], ["predict", "decision_function"]
    if is_classifier(last):
        return ["label", "probabilities"], ["predict", *has[:1]]
    if is_regressor(last):
        return ["variable"], ["predict"]
    if hasattr(estimator, "predict") and hasattr(estimator, "transform"):
        return ["label", "scores"], ["predict", "transform"]
    return ["variable"], ["predict" if hasattr(estimator, "predict") else "transform"]


def _columns(last: Any) -> set[str]:
    """The outputs that are a column in the graph, where the estimator gives one number a row."""
    if isinstance(last, SGDOneClassSVM):
        return set()
    return {"variable", "scores"} | ({"label"} if is_outlier_detector(last) else set())


def _as_declared(name: str, array: Array, *, column: bool) -> Array:
    """Shape and type as the graph has them: a `column` if it is one, floats in float32."""
    if array.dtype == object and array.ndim > 1:
        raise Refused("FRAMEWORK_ANSWER", f"{name}: expected one table, found several in a list")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu":
        array = array.astype(np.int64)
    return array.reshape(-1, 1) if column and array.ndim == 1 else array


def _open(shape: list[int | str]) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in shape]


def _steps(estimator: Any) -> list[Any]:
    """Every estimator inside of one, itself included."""
    found, waiting = [], [estimator]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for name in ("steps", "transformers_", "estimators_", "transformer_list"):
            inner = getattr(one, name, None)
            if inner is not None:
                waiting += [_estimator_of(part) for part in np.ravel(np.array(inner, dtype=object))]
        inner_one = [
            getattr(one, name, None) for name in ("estimator", "estimator_", "best_estimator_")
        ]
        waiting += [part for part in inner_one if part is not None and hasattr(part, "get_params")]
    return [one for one in found if hasattr(one, "get_params")]


def _estimator_of(part: Any) -> Any:
    return part[1] if isinstance(part, tuple) else part


def _register(one: Any) -> None:
    """Teach skl2onnx the models of XGBoost and LightGBM, once each."""
    library = type(one).__module__.partition(".")[0]
    if library not in {"xgboost", "lightgbm"}:
        return
    folder, alias = {"xgboost": ("xgboost", "XGBoost"), "lightgbm": ("lightgbm", "LightGbm")}[
        library
    ]
    classifier = is_classifier(one)
    module, function = {
        ("xgboost", True): ("XGBoost", "convert_xgboost"),
        ("xgboost", False): ("XGBoost", "convert_xgboost"),
        ("lightgbm", True): ("LightGbm", "convert_lightgbm"),
        ("lightgbm", False): ("LightGbm", "convert_lightgbm"),
    }[library, classifier]
    converters = importlib.import_module(
        f"onnxmltools.convert.{folder}.operator_converters.{module}"
    )
    update_registered_converter(
        type(one),
        f"{alias}{type(one).__name__}",
        calculate_linear_classifier_output_shapes
        if classifier
        else calculate_linear_regressor_output_shapes,
        getattr(converters, function),
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifier else None,
        overwrite=True,
    )
