"""Why a model could not be converted.

ConvertError
├── SetupFailed          a framework's environment cannot be made, or is missing
├── SourceRefused        the model is of no known form, or loading it would run code
├── InputsUnclear        what goes into the model is not known well enough to ask it
├── FrameworkFailed      the framework could not load, answer or export the model
└── ParityFailed         the graph's answers are not the original's
"""

from __future__ import annotations

from superbrain.wire.errors import SuperbrainError


class ConvertError(SuperbrainError):
    """Root of this tree: a sentence, a stable `code` and, where there is one, the mend."""

    def __init__(self, message: str, *, code: str, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.code = code


class SetupFailed(ConvertError):
    """A framework's environment is missing, or could not be made."""


class SourceRefused(ConvertError):
    """The model's files are of no known form, or may not be loaded."""


class InputsUnclear(ConvertError):
    """Inputs, sizes or samples are missing or contradict the model."""


class FrameworkFailed(ConvertError):
    """The framework, or one of its converters, gave up; `code` says at what."""


class ParityFailed(ConvertError):
    """Original and graph disagree; nothing was written."""
