"""Reads the profiles of `benches/instructions`, prints the table, and checks the gates."""

import re
import sys
from pathlib import Path

SLACK = 1.10
# Operations that miss their target by more than the slack, with the count that they may not exceed.
# An entry is removed when its target is met.
MISSED: dict[str, int] = {}
# Operations whose cost must not depend on a size, and the largest ratio that is allowed.
SIZES = {"decode text": 1.05, "decode reply": 1.05, "core: frame in": 1.10, "core: join answered": 1.20}
# The names of the sizes: the small one and the large one.
PAIRS = [("64 B", "16 KiB"), ("1,000 unanswered", "16,000 unanswered")]


def total(profile: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", profile.read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0


def spent(profile: Path) -> list[tuple[int, str]]:
    """The own cost of each function, the highest first. `callgrind_annotate` does not read
    a profile that is one part of several."""
    own, function, called = {}, "", False
    for line in profile.read_text().splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            called = True
        elif re.match(r"[\d+*-]", line):
            if not called:
                own[function] = own.get(function, 0) + int(line.split()[1])
            called = False
    return sorted(((cost, name) for name, cost in own.items()), reverse=True)[:25]


def main() -> int:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    cases = [line.split(" ", 2) for line in (folder / "cases").read_text().splitlines()]
    profiles = [folder / f"profile.{number}" for number in range(1, len(cases) + 1)]
    if not all(profile.exists() for profile in profiles):
        print("not one profile for each case: was `measured` inlined?", file=sys.stderr)
        return 1

    failures, counts = [], {}
    print(f"{'instructions per operation':64} {'measured':>9} {'target':>7}")
    for (repeat, target, name), profile in zip(cases, profiles):
        repeat, target = int(repeat), int(target)
        count = counts[name] = round(total(profile) / repeat)
        allowed = max(target, MISSED.get(name, 0))
        over = target and count > allowed * SLACK
        mark = "FAILED" if over else f"{count / target:.2f} x" if target and count > target else ""
        print(f"{name:64} {count:>9,} {target or '':>7} {mark}".rstrip())
        if over:
            failures.append(f"{name}: {count:,} is more than 10 % over {allowed:,}")
        if count == 0:
            failures.append(f"{name}: nothing was counted")
        if "--profile" in options:
            for own, function in spent(profile):
                print(f"    {own / repeat:>9,.0f}  {function}")

    for name, small in counts.items():
        allowed = next((by for start, by in SIZES.items() if name.startswith(start)), None)
        for one, other in PAIRS:
            larger = name.replace(one, other)
            large = counts.get(larger, small)
            if allowed and large > small * allowed and large > MISSED.get(larger, 0) * SLACK:
                failures.append(f"{name}: {small:,}, but {large:,} with {other}")
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
