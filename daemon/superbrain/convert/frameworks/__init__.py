"""What runs in a framework's own environment: load a model, answer samples, export it to ONNX.

These modules are never imported by superbrain: `main.py` is started with the Python of an
environment that holds one framework, numpy and onnx, and nothing else, so they import nothing of
superbrain either. Each framework's module has `load(order)`, which gives a `Model` (see `talk`).
"""
