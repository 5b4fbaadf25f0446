"""The OpenMetrics parser of prometheus_client, asked over stdin: a page in, its families out as JSON.

Exits with 1 for what is no page, and with 77 where the parser cannot be had: then the caller skips,
visibly. It is installed beside this file, once, as requirements.txt says.
"""

import json
import math
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
    # Aside, and renamed when it is complete: two tests may do so at a time.
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=HERE) as aside:
        target = os.path.join(aside, "modules")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--require-hashes", "--target", target, "-r", WANTED]
        done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              timeout=120, check=False)
        if done.returncode != 0:
            said = f"pip: {done.stderr.strip()[-300:]}"
            if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
                # No reason to skip.
                sys.exit(said)
            print(said, file=sys.stderr)
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


def value(number):
    return number if math.isfinite(number) else str(number)


def main():
    if not installed():
        install()
    sys.path.insert(0, PLACE)
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(sys.stdin.read()))
    except ValueError as error:
        sys.exit(f"no OpenMetrics: {error}")
    print(json.dumps([
        {
            "name": family.name,
            "type": family.type,
            "unit": family.unit,
            "help": family.documentation,
            "samples": [[sample.name, sample.labels, value(sample.value)]
                        for sample in family.samples],
        }
        for family in families
    ]))


main()
