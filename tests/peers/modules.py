"""Installs the Python packages of requirements.txt in this folder, once.

Exits with 77 if they are not available. The caller then reports that it skips its test.
"""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
WANTED = os.path.join(HERE, "requirements.txt")
PLACE = os.path.join(HERE, "python_modules")
CANNOT = 77


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def installed():
    return read(os.path.join(PLACE, "requirements.txt")) == read(WANTED)


def install():
    # Installs into a temporary folder and renames it, because two tests may install at the same time.
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=HERE) as aside:
        target = os.path.join(aside, "modules")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--require-hashes", "--target", target, "-r", WANTED]
        done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              timeout=120, check=False)
        if done.returncode != 0:
            error = f"pip: {done.stderr.strip()[-300:]}"
            if "THESE PACKAGES DO NOT MATCH THE HASHES" in error:
                # Wrong hashes are a failure, not a reason to skip the test.
                sys.exit(error)
            print(error, file=sys.stderr)
            sys.exit(CANNOT)
        with open(os.path.join(target, "requirements.txt"), "w", encoding="utf-8") as file:
            file.write(read(WANTED))
        if os.path.isdir(PLACE) and not installed():
            os.rename(PLACE, os.path.join(aside, "old"))
        try:
            os.rename(target, PLACE)
        except OSError:
            if not installed():
                raise


def load():
    """Makes the packages importable."""
    if not installed():
        install()
    sys.path.insert(0, PLACE)
