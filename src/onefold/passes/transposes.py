"""OVERWRITTEN BY MISTAKE: this file held uncommitted rules (RULES, used by pipeline.py) when the
author of the kernel families wrote another file over it at 01:05. They could not be recovered;
whoever wrote them: please put them back over this text. Empty until then, so that imports work.
"""

from __future__ import annotations

from onefold.passes.rewrite import Rule

RULES: tuple[Rule, ...] = ()
