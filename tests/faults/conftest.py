"""Drivers of many lives, as processes of their own; how many lives is read from the environment.

- `KITD_SOAK_SEED`: where all randomness begins;
- `KITD_SOAK_CALLS_S`: for how long calls are made to fail in each mode, one n after the other;
- `KITD_SOAK_CALLS_STEP`: how far apart the failing calls are.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PLAN_BYTES = 4096


@pytest.fixture(scope="session")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail, compiled here."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (Debian has the packages gcc and libc6-dev)")
    library = tmp_path_factory.mktemp("failing-calls") / "failing_calls.so"
    source = HERE / "failing_calls.c"
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


@pytest.fixture
def fail_calls(failing_calls: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run `fail_calls.py` with arguments; return its summary."""

    def run(*arguments: object, timeout_s: float) -> dict[str, Any]:
        plan = tmp_path / "plan"
        plan.write_bytes(bytes(PLAN_BYTES))
        return run_driver(
            HERE / "fail_calls.py",
            tmp_path,
            *arguments,
            timeout_s=timeout_s,
            environ={"LD_PRELOAD": str(failing_calls), "FAILING_CALLS": str(plan)},
        )

    return run


@pytest.fixture
def run_small_disk(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run `small_disk.py` on a disk; return its summary."""

    def run(disk: Path, *arguments: object) -> dict[str, Any]:
        driver = HERE / "small_disk.py"
        return run_driver(driver, disk, tmp_path, *arguments, timeout_s=150.0, environ={})

    return run


@pytest.fixture
def run_stream_disk(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run `stream_disk.py` on a disk; return its summary."""

    def run(disk: Path, *arguments: object) -> dict[str, Any]:
        driver = HERE / "stream_disk.py"
        return run_driver(driver, disk, tmp_path, *arguments, timeout_s=1800.0, environ={})

    return run


def run_driver(
    driver: Path, place: Path, *arguments: object, timeout_s: float, environ: dict[str, str]
) -> dict[str, Any]:
    """Run a driver to its end; return the summary that it prints last."""
    done = subprocess.run(
        [sys.executable, driver, place, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={"PATH": os.environ["PATH"], **environ},
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
