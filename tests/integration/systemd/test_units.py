"""The units as systemd's own tools judge them. How kitd behaves under one is in tests/e2e."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"
KITD = Path(sys.executable).parent / "kitd"
EXPOSURE = 20
"""In tenths: what `systemd-analyze security` calls OK ends here."""


@pytest.fixture
def analyze(tmp_path):
    """Run systemd-analyze over the units, as they would be with kitd where it is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def run(*words, user=False, dropin=None):
        for unit in (UNITS / "user" if user else UNITS).glob("kitd.*"):
            text = unit.read_text().replace("/usr/bin/kitd", str(KITD))
            (tmp_path / unit.name).write_text(text)
        if dropin is not None:
            (tmp_path / "kitd.service.d").mkdir()
            shutil.copy(UNITS / dropin, tmp_path / "kitd.service.d")
        done = subprocess.run(
            ["systemd-analyze", *words],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "XDG_RUNTIME_DIR": str(tmp_path),
                "SYSTEMD_UNIT_PATH": f"{tmp_path}:",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_the_system_units_are_clean(analyze):
    code, said = analyze("verify", "./kitd.service", "./kitd.socket")
    assert (code, said) == (0, "")


def test_the_user_units_are_clean(analyze):
    code, said = analyze("verify", "--user", "./kitd.service", "./kitd.socket", user=True)
    assert (code, said) == (0, "")


@pytest.mark.parametrize("dropin", [None, "lease-gate.conf"])
def test_the_service_is_hardly_exposed(analyze, dropin):
    code, said = analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE}", "./kitd.service", dropin=dropin
    )
    assert code == 0, said


def test_the_drop_in_for_the_lease_gate_gives_that_and_nothing_else():
    given = [
        line.partition("=")[2]
        for line in (UNITS / "lease-gate.conf").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    ]
    assert given == ["CAP_LEASE", "CAP_LEASE"]


@pytest.mark.parametrize("directive", ["PrivateUsers", "ProcSubset", "DynamicUser"])
def test_what_would_break_kitd_is_not_in_the_unit(directive):
    """Peers of the socket keep their identity, and the limits of inotify can be read."""
    lines = (UNITS / "kitd.service").read_text().splitlines()
    assert not [line for line in lines if line.startswith(f"{directive}=")]
