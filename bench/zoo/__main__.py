"""Writes networks of the zoo: see __init__."""

import argparse
from pathlib import Path

from bench import zoo

parser = argparse.ArgumentParser(
    prog="python -m bench.zoo", description="Writes networks of the zoo as ONNX files."
)
parser.add_argument("folder", type=Path, help="where they go; made if need be")
parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(zoo.NETWORKS))
args = parser.parse_args()
unknown = [n for n in args.networks if n not in zoo.NETWORKS]
if unknown:
    parser.error(f"there is no network {', '.join(unknown)}; known are {', '.join(zoo.NETWORKS)}")
args.folder.mkdir(parents=True, exist_ok=True)
for name in args.networks or zoo.NETWORKS:
    print(zoo.NETWORKS[name]().save(args.folder))
