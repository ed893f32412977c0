"""Writes networks of the zoo: see __init__."""

import sys
from pathlib import Path

from bench.zoo import NETWORKS

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
for name in sys.argv[2:] or NETWORKS:
    print(NETWORKS[name]().save(folder))
