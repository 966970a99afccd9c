"""The fuzz tests again, with as many examples as asked for; also the profile with which pytest then runs them (`-p`)."""

import os
import subprocess
import sys

from hypothesis import HealthCheck, settings

PROFILE, EXAMPLES = "fuzz", "VKNIX_FUZZ_EXAMPLES"
TESTS = ("tests/unit/test_fuzz_framers.py", "tests/kubelet/test_fuzz.py")

settings.register_profile(
    PROFILE,
    max_examples=int(os.environ.get(EXAMPLES, "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


def fuzz(examples: int, processes: int) -> int:
    """pytest's exit code. An example that fails is kept in .hypothesis, and tried first the next time."""
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", "-p", "tests.bench.fuzz", f"--hypothesis-profile={PROFILE}"]
    if processes > 1:
        command.append(f"--numprocesses={processes}")
    return subprocess.run([*command, *TESTS], env={**os.environ, EXAMPLES: str(examples)}).returncode
