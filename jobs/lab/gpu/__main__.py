"""`python -m jobs.lab.gpu [cuda|cpu]`: one JSON line a check; exit code 1 if any failed, 2 where
there is no such device.
"""

import json
import sys

import torch

from jobs.lab.gpu.all_checks import run
from jobs.lab.gpu.device import Device


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "cuda"
    if name not in ("cuda", "cpu"):
        print(f"the device must be cuda or cpu, got {name}", file=sys.stderr)
        return 2
    if name == "cuda" and not torch.cuda.is_available():
        told = f"torch {torch.__version__} sees no GPU here; cpu runs the same checks in small"
        print(told, file=sys.stderr)
        return 2
    device = Device(name)
    all_passed = True
    for line in run(device):
        print(json.dumps(line), flush=True)
        all_passed = all_passed and line["passed"]
    return 0 if all_passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
