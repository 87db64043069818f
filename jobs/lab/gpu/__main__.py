"""`python -m jobs.lab.gpu [cuda|cpu]`: one JSON line a check; exit code 1 if any failed."""

import json
import sys

from jobs.lab.gpu.all_checks import run
from jobs.lab.gpu.device import Device


def main(arguments: list[str]) -> int:
    device = Device(arguments[0] if arguments else "cuda")
    all_passed = True
    for line in run(device):
        print(json.dumps(line), flush=True)
        all_passed = all_passed and line["passed"]
    return 0 if all_passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
