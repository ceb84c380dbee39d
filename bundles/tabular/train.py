"""Makes graphs/model.onnx and the goldens: how a model of your own gets into a bundle.

    python bundles/tabular/train.py

Responsible for the model (scaling and logistic regression on the wine data that scikit-learn
ships), its conversion to ONNX, and goldens that are the answers of scikit-learn itself, not of the
converted graph: so proving the bundle proves the conversion too. The rows of the goldens took no
part in training. A second run makes the same bytes. Needs scikit-learn and skl2onnx.
"""

import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
OPSET = {"": 17, "ai.onnx.ml": 3}


def train() -> tuple[Pipeline, np.ndarray, np.ndarray]:
    """The fitted model, and rows with their true classes that it has not seen."""
    features, classes = load_wine(return_X_y=True)
    # Callers send float32, so the model is trained and asked in float32 as well.
    seen, unseen, seen_classes, unseen_classes = train_test_split(
        features.astype(np.float32), classes, test_size=45, random_state=0, stratify=classes
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(seen, seen_classes), unseen, unseen_classes


def write_graph(model: Pipeline) -> None:
    """The converted model; without zipmap, probabilities are a tensor and not a list of maps."""
    columns = model[0].n_features_in_
    graph = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, columns]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    path = HERE / "graphs/model.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def write_case(name: str, model: Pipeline, rows: np.ndarray) -> None:
    """One golden case: what is sent, and what scikit-learn answers."""
    labels = model.predict(rows)
    classes = (HERE / "assets/classes.txt").read_text(encoding="utf-8").splitlines()
    request, response = (HERE / "golden" / name / part for part in ("request", "response"))
    request.mkdir(parents=True, exist_ok=True)
    response.mkdir(parents=True, exist_ok=True)
    np.save(request / "features.npy", rows)
    np.save(response / "label.npy", labels.astype(np.int64))
    np.save(response / "probabilities.npy", model.predict_proba(rows).astype(np.float32))
    names = json.dumps([classes[label] for label in labels])
    (response / "name.json").write_text(names + "\n", encoding="utf-8")


def main() -> None:
    model, unseen, unseen_classes = train()
    write_graph(model)
    write_case("unseen-rows", model, unseen)
    write_case("one-row", model, unseen[:1])
    right = (model.predict(unseen) == unseen_classes).mean()
    print(f"made    tabular/graphs/model.onnx and goldens ({right:.1%} of unseen rows right)")


if __name__ == "__main__":
    main()
