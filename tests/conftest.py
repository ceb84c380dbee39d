"""What holds for every test: its environment has nothing of who runs it.

Workers of pytest-xdist are told how wide a terminal is, and what the command prints into a pipe
must not depend on that. A machine that is busy makes no test fail: nothing is judged by its time.
"""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

BRIEF_EXAMPLES = 25  # on a second Python, which is asked whether it does the same


def pytest_configure() -> None:
    """Forget the terminal, a collector of spans, and whose job this process and its own are."""
    os.environ.pop("COLUMNS", None)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a background job, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.register_profile("brief", patient, max_examples=BRIEF_EXAMPLES)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))
