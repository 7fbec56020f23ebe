#!/usr/bin/env python3
"""Compare an Autobahn run with the checked-in expectation.

    compare.py OUT_DIR/index.json EXPECTED.json [--write]

EXPECTED maps a case to [behavior, behaviorClose].  Any difference fails, an unexpected improvement
and a case that is missing or new too, so that the file always says what is true.  --write replaces
EXPECTED by the run's result; read the difference before committing it.
Exit status: 0 the same, 1 different, 2 no usable result.
"""

import json
import sys

RANK = {"OK": 0, "INFORMATIONAL": 1, "NON-STRICT": 2}  # everything else is worse


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        print("compare: no usable result: %s" % e, file=sys.stderr)
        sys.exit(2)


def verdicts(index):
    if len(index) != 1:
        print("compare: one agent wanted, the index has: %s" % (", ".join(sorted(index)) or "none"), file=sys.stderr)
        sys.exit(2)
    (cases,) = index.values()
    return {case: [r["behavior"], r["behaviorClose"]] for case, r in cases.items()}


def case_key(case):
    return [int(part) for part in case.split(".")]


def write(path, cases):
    rows = ",\n".join('"%s": %s' % (c, json.dumps(cases[c])) for c in sorted(cases, key=case_key))
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n%s\n}\n" % rows)


def kind(was, now):
    if was is None:
        return "not expected"
    if now is None:
        return "MISSING"
    worst = lambda verdict: max(RANK.get(v, 9) for v in verdict)
    return "REGRESSION" if worst(now) > worst(was) else "improvement" if worst(now) < worst(was) else "different"


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    now = verdicts(load(arguments[0]))
    if "--write" in sys.argv:
        write(arguments[1], now)
        print("compare: %d cases written to %s" % (len(now), arguments[1]))
        return 0
    was = load(arguments[1])
    different = [c for c in sorted({*was, *now}, key=case_key) if was.get(c) != now.get(c)]
    for c in different:
        say = lambda v: " / ".join(v) if v else "-"
        print("  %-8s %-13s expected %s, got %s" % (c, kind(was.get(c), now.get(c)), say(was.get(c)), say(now.get(c))))
    print("compare: %d cases as expected, %d different" % (len({*was, *now}) - len(different), len(different)))
    return 1 if different or not now else 0


if __name__ == "__main__":
    sys.exit(main())
