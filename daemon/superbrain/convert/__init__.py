"""From a framework's model to a graph whose answers are the framework's own.

Frameworks conflict with each other and weigh gigabytes, so none of them is ever imported here. Each
has an environment of its own (`environments`), in which a small program (`frameworks/`) loads the
model, answers samples and exports it; this side talks to it by pipes and .npy files
(`conversation`). The graph answers the same samples on the runtime that hosts use (`reference`),
and only one that agrees is handed on (`parity`).
"""
