"""Where a value came from: whoever set a wrong one is named, the file or a variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.app.config import Config, ConfigError, load_config


def refusal(
    path: Path | None = None, root: Path | None = None, /, **environment: str
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, root, environment)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "superbrain.toml"
    path.write_text("[deploy]\nparallel = 3\n")
    return path


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("DEPLOY__PROBATION_S", "abc", "does not fit: Expected `float`, got `str`"),
        ("DEPLOY__PARALLEL", "2.5", "does not fit: Expected `int`, got `float`"),
        ("METRICS__REMOTE", "yes", "does not fit: Expected `bool`, got `str`"),
        ("TCP__ENDPOINTS", "[1]", "does not fit: Expected `str`, got `int`"),
        ("SANDBOX__REQUIRE", "most", "does not fit: Invalid enum value 'most'"),
        ("DEPLOY__PROBATION_S", "-1", ": expected deploy.probation_s of 0 to 604800, found -1.0"),
        ("DEPLOY__RESCAN_S", "nan", ": expected deploy.rescan_s of 0.1 to 3600, found nan"),
        ("LOG__LEVEL", "loud", ": expected log.level debug, info, warning or error, found 'loud'"),
        ("PATHS__INBOX", "inbox", ": expected paths.inbox to be an absolute path"),
        ("PATHS__STATE", "/run", ": expected paths.runtime outside paths.state"),
        ("SERVE__ENDPOINT", "http://x", ": expected serve.endpoint like ipc:///"),
        ("METRICS__LISTEN", "0.0.0.0:9464", ": metrics.listen 0.0.0.0:9464 can be reached"),
        ("INFERENCE_LOG__TO", "syslog", ": expected inference_log.to"),
    ],
)
def test_a_variable_that_does_not_fit_is_named_with_its_value(
    file: Path, name: str, text: str, sentence: str
) -> None:
    error = refusal(file, **{f"SUPERBRAIN__{name}": text})
    assert f"the variable SUPERBRAIN__{name}={text!r}" in error.message
    assert sentence in error.message
    assert str(file) not in error.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DEPLOY__PROBATION", "SUPERBRAIN__DEPLOY__PROBATION_S"),
        ("DEPLYO__PARALLEL", "SUPERBRAIN__DEPLOY__PARALLEL"),
        ("DEPLOY__PARALLEL__", "SUPERBRAIN__DEPLOY__PARALLEL"),
        ("DEPLOY", ""),
        ("ENTIRELY__ELSE", ""),
        ("", ""),
    ],
)
def test_a_variable_for_no_key_is_named_and_so_is_the_one_that_was_meant(
    file: Path, name: str, meant: str
) -> None:
    error = refusal(file, **{f"SUPERBRAIN__{name}": "5"})
    hint = f", did you mean {meant}?" if meant else ""
    named = f"the variable SUPERBRAIN__{name}='5'"
    assert error.message == f"{named}: expected SUPERBRAIN__SECTION__KEY of a known key{hint}"
    assert error.mend == "superbrain config explain lists every key with its meaning"


def test_what_the_file_sets_is_the_files_fault_whatever_variables_there_are(file: Path) -> None:
    file.write_text("[deploy]\nparallel = 'two'\n")
    error = refusal(file, SUPERBRAIN__DEPLOY__PROBATION_S="5")
    assert error.message.startswith(f"the configuration {file} does not fit: Expected `int`")
    file.write_text("deploy = 3\n")
    assert str(file) in refusal(file, SUPERBRAIN__DEPLOY__PROBATION_S="5").message


def test_a_wrong_value_that_a_variable_replaces_does_no_harm(file: Path) -> None:
    file.write_text("[deploy]\nparallel = 'two'\n")
    assert load_config(file, None, {"SUPERBRAIN__DEPLOY__PARALLEL": "4"}).deploy.parallel == 4


def test_a_number_where_text_is_taken_needs_quotes(file: Path) -> None:
    error = refusal(file, SUPERBRAIN__SERVE__GROUP="1000")
    assert error.mend == "superbrain config explain serve.group says what it takes"
    assert load_config(file, None, {"SUPERBRAIN__SERVE__GROUP": '"1000"'}).serve.group == "1000"


def test_folders_below_a_root_are_the_roots(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 100)
    error = refusal(None, root, SUPERBRAIN__PATHS__RUNTIME="/run/superbrain")
    assert error.message.startswith(f"--root {root}: paths.runtime makes socket paths of")


def test_variables_of_other_programs_are_theirs() -> None:
    assert load_config(None, None, {"SUPERBRAIN_ENDPOINT": "x", "PATH": "/bin"}) == Config()
