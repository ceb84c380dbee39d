"""The code of a template as it goes into an author's folder: its files, with constants set.

The files are package data, plain Python that runs as it stands; `# …` behind a constant stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources


def source_of(file: str, constants: Mapping[str, object]) -> str:
    """Give the text of a template's file, such as `ocr/pipeline.py`, with these constants.

    Raises:
        KeyError: the file sets no such constant at its top, once.
    """
    text = resources.files("superbrain").joinpath("templates", file).read_text(encoding="utf-8")
    for name, value in constants.items():
        lines = re.findall(rf"^{name} = [^\n#]*?(?=(?:  #[^\n]*)?$)", text, flags=re.MULTILINE)
        if len(lines) != 1:
            raise KeyError(f"{file}: expected one line that sets {name}, found {len(lines)}")
        text = text.replace(f"\n{lines[0]}", f"\n{name} = {python_value(value)}", 1)
    return text


def python_value(value: object) -> str:
    """Write a value as Python, strings in double quotes as the templates have them."""
    if isinstance(value, str):
        quoted = repr(value)
        return quoted if '"' in value or "\\" in quoted else f'"{value}"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{python_value(k)}: {python_value(v)}" for k, v in value.items())
        return f"{{{inside}}}"
    if isinstance(value, tuple):
        inside = ", ".join(map(python_value, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)
