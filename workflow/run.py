"""Run the graph of the Snakefile beside this file, once at a time in a folder.

    python workflow/run.py [TARGET] --cores 2 [--config NAME=VALUE ...] [any option of snakemake]

Snakemake's own lock stays behind when a run is killed, and must be removed by hand by someone who knows that no other
run goes on. The lock held here is the system's, which frees it with the process, however that ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from viptt_core.files import artifact_root


def main(arguments: list[str]) -> None:
    """Call Snakemake in the folder that holds `runs/`; exits with its code."""
    from snakemake.cli import main as snakemake

    # The jobs call `viptt` and `papermill`: those beside this Python, also where its environment is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    root = artifact_root()
    (root / "runs").mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / "runs" / ".workflow.lock", timeout=0)
    try:
        with lock:
            snakefile = Path(__file__).with_name("Snakefile")
            snakemake(["--snakefile", str(snakefile), "--directory", str(root), "--nolock", *arguments])
    except Timeout:
        sys.exit(f"{root}: another run of the workflow is at work here. Wait for it, or stop it first.")


if __name__ == "__main__":
    main(sys.argv[1:])
