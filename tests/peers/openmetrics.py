"""The OpenMetrics parser of prometheus_client: reads a page on stdin, prints its families as JSON.

Exits with 1 for a malformed page, and with 77 if the parser is not available: the caller then skips,
visibly.
"""

import json
import math
import sys

import modules


def value(number):
    return number if math.isfinite(number) else str(number)


def main():
    modules.load()
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(sys.stdin.read()))
    except ValueError as error:
        sys.exit(f"not OpenMetrics: {error}")
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
