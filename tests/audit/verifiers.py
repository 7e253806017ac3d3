"""The verifiers of the log: ours, and those that others wrote. Each gives its exit status, and what it printed.

`SALLYPORT`, and `TLOG_GO`, the verifier of tests/tlog/go, built, must be in the environment.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(os.environ["ROOT"])


def sallyport(*arguments, config=None, **options):
    """Runs it: exit status, and what it printed."""
    command = [os.environ["SALLYPORT"], *(["-c", str(config)] if config else []), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    return done.returncode, done.stdout + done.stderr


def go(folder, key, *earlier):
    done = subprocess.run([os.environ["TLOG_GO"], str(folder), key, *map(str, earlier)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def node(folder, *more):
    done = subprocess.run(["node", str(ROOT / "tests/tlog/verify.mjs"), str(folder), *map(str, more)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr
