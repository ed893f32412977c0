"""`python -m onefold`: the command line where the script is not on the path."""

from onefold.cli import main

main()
