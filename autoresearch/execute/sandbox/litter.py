"""Removing what a candidate left behind, however it was left.

Python's own `shutil.rmtree` recurses, so folders nested deep enough end it with a `RecursionError`; and an
ordinary user cannot remove what lies in a folder without its write permission, which the owner may take
away. Both would let a candidate end a search, or fill its disk trial by trial.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


def remove_tree(folder: Path) -> bool:
    """Remove a folder and everything in it; links are removed, not followed.

    The system's own tools do it: they go down any depth, and beyond the longest path there is.

    Returns:
        Whether it is gone.
    """
    if folder.is_dir() and not folder.is_symlink():
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(folder)], capture_output=True, check=False)
    return not folder.exists()
