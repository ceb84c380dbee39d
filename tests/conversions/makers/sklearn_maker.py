"""Small real models of scikit-learn, XGBoost and LightGBM, on data that scikit-learn ships."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import OneClassSVM
from talk import keep
from xgboost import XGBClassifier, XGBRegressor

SIZES = (1, 5, 64)


def main(folder: Path) -> None:
    x, y = load_wine(return_X_y=True)
    x = x.astype(np.float32)
    rows, rest = x[::2], x[1::2]
    for name, model in {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "histogram": HistGradientBoostingClassifier(max_iter=10),
        "xgboost": make_pipeline(StandardScaler(), XGBClassifier(n_estimators=8)),
        "xgboost-regressor": XGBRegressor(n_estimators=8),
        "lightgbm": LGBMClassifier(n_estimators=8, verbose=-1),
        "lightgbm-regressor": LGBMRegressor(n_estimators=8, verbose=-1),
        "isolation-forest": IsolationForest(n_estimators=8, random_state=0),
        "one-class-svm": make_pipeline(StandardScaler(), OneClassSVM()),
        "local-outliers": LocalOutlierFactor(novelty=True),
    }.items():
        model.fit(x, y)
        place = folder / name
        place.mkdir(parents=True)
        joblib.dump(model, place / "model.joblib")
        np.save(place / "rows.npy", rows)
        for number, size in enumerate(SIZES):
            asked = rest[:size]
            if hasattr(model, "decision_function") and not hasattr(model, "predict_proba"):
                answer = {
                    "label": model.predict(asked).reshape(-1, 1),
                    "scores": model.decision_function(asked).reshape(-1, 1),
                }
            elif hasattr(model, "predict_proba"):
                answer = {
                    "label": model.predict(asked),
                    "probabilities": model.predict_proba(asked),
                }
            else:
                answer = {"variable": model.predict(asked).reshape(-1, 1)}
            keep(place, number, {"features": asked}, answer)
    other_normalisation(folder / "pipeline", x, y)
    columns(folder / "columns")


def other_normalisation(place: Path, x: np.ndarray, y: np.ndarray) -> None:
    """A graph that its author exported of another model: the scaler is not the same."""
    other = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
    right = joblib.load(place / "model.joblib")
    for name, model in (("wrong", other), ("right", right)):
        graph = to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, x.shape[1]]))],
            options={"zipmap": False},
            target_opset=17,
        )
        (place / f"{name}.onnx").write_bytes(graph.SerializeToString())


def columns(place: Path) -> None:
    """A table with numbers and words, each column an input."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": random.normal(40, 10, 200).astype(np.float32),
            "town": random.choice(["Ulm", "Bonn", "Köln"], 200),
        }
    )
    target = np.where((table.age > 40) ^ (table.town == "Bonn"), "ja", "nein")
    model = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["town"])
        ),
        LogisticRegression(),
    ).fit(table, target)
    place.mkdir(parents=True)
    joblib.dump(model, place / "model.joblib")
    for number in range(4):
        part = table[number * 10 : number * 10 + 10]
        sample = place / "samples" / str(number)
        sample.mkdir(parents=True)
        for name in table:
            np.save(sample / f"{name}.npy", column(part, str(name)))
    for number, size in enumerate((1, 5, 16)):
        asked = table[100 : 100 + size]
        answer = {
            "label": model.predict(asked).astype(np.str_),
            "probabilities": model.predict_proba(asked),
        }
        keep(place, number, {str(name): column(asked, str(name)) for name in table}, answer)


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    values = table[name].to_numpy().reshape(-1, 1)
    return values.astype(np.str_) if name == "town" else values


if __name__ == "__main__":
    main(Path(sys.argv[1]))
