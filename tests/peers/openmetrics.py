"""The OpenMetrics parser of prometheus_client, asked over stdin: a page in, its families out as JSON.

Exits with 1 for what is no page, and with 77 where the parser cannot be had: then the caller skips,
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
