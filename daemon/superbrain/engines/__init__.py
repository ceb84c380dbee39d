"""Graphs made runnable on this host: engine and builder ports, the runtimes, cache and host probe.

Nobody else imports onnxruntime, tensorrt or cuda.
"""
