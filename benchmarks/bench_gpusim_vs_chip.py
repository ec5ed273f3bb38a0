# SPDX-License-Identifier: MIT
"""How far a Hopper GPU's results are from the software GPU's, kernel by kernel.

Single instructions (arithmetic, approximate functions, warp operations), mbarriers, copies with
every swizzle, wgmma in its types and layouts, a GEMM of ours, kernels of `quack-kernels`: the same
PTX runs on both, on the same memory.

    python benchmarks/bench_gpusim_vs_chip.py --save

A machine with a GPU needs neither CuTe DSL nor the software GPU: record the launches where they
are, and take the folder along (numpy and a CUDA driver suffice there).

    python benchmarks/bench_gpusim_vs_chip.py --record launches
    python benchmarks/bench_gpusim_vs_chip.py --launches launches --save
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from results import save

sys.path.append(str(Path(__file__).parent.parent / "tests/gpu"))
sys.path.append(str(Path(__file__).parent.parent / "tests/gpusim"))

from on_chip import compare, hopper
from saved_launch import SavedLaunch, saved_in


def record(folder: Path) -> int:
    """The launches of every case, executed by the software GPU; how many."""
    from chip_cases import CASES
    from chip_cases import record as launches_of

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name in CASES:
        for saved in launches_of(name):
            saved.save(folder)
            count += 1
    return count


def compared(saved: SavedLaunch, gpu: Any) -> dict[str, Any]:
    """A row of the table; an error of the driver is a row, too."""
    row: dict[str, Any] = {"launch": saved.name, "tolerance": saved.tolerance.why}
    try:
        found = compare(saved, gpu)
    except RuntimeError as error:
        return row | {"agrees": False, "error": str(error)}
    return row | {
        "agrees": not any(difference.beyond for difference in found),
        "elements": sum(difference.elements for difference in found),
        "different_bits": sum(difference.different_bits for difference in found),
        "beyond_tolerance": sum(difference.beyond for difference in found),
        "greatest_absolute": max(difference.greatest_absolute for difference in found),
        "greatest_relative": max(difference.greatest_relative for difference in found),
    }


def printed(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['launch']:28} {row['error']}"
    return (
        f"{row['launch']:28} {'agrees' if row['agrees'] else 'DIFFERS':8}"
        f"{row['different_bits']:9,} of {row['elements']:9,} differ, at most "
        f"{row['greatest_absolute']:.2e} or {row['greatest_relative']:.2e} of the value"
        f" ({row['tolerance']})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="only write the launches")
    parser.add_argument("--launches", type=Path, metavar="FOLDER", help="recorded before")
    parser.add_argument("--save", action="store_true", help="write results/gpusim_vs_chip.json")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # of CuTe DSL's names
    if given.record is not None:
        print(f"{record(given.record)} launches are in {given.record}")
        return 0
    gpu = hopper()
    if isinstance(gpu, str):
        print(gpu)
        return 0
    with tempfile.TemporaryDirectory() as own:
        folder = given.launches or Path(own)
        if given.launches is None:
            record(folder)
        launches = saved_in(folder)
        if not launches:
            print(f"{folder} has no launches: write some with --record {folder}")
            return 2
        print(f"{gpu.name}, driver for CUDA {gpu.version}")
        rows = []
        for saved in launches:
            rows.append(compared(saved, gpu))
            print(printed(rows[-1]), flush=True)
    if given.save:
        chip = {"name": gpu.name, "cuda_of_driver": gpu.version}
        print(f"-> {save('gpusim_vs_chip', {'chip': chip, 'launches': rows})}")
    gpu.close()
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
