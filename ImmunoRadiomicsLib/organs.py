"""What the words say with which a person names the organ of a lesion."""

from __future__ import annotations

import re

NODES = "lymph nodes"
_SIDE = re.compile(r"\b(left|right|bilateral|l|r)\b[ .]*")
_LOBE = re.compile(r"\b(upper|middle|lower)\s+lobe\b|\blingula\b|\blobe\b")
_NODE = re.compile(r"\bnod(e|es|al)\b|\blymphadenopath")


def organ_group(organ: str, *, node: bool) -> str:
    """Return the organ that a lesion counts for: paired organs and lobes are one organ, all lymph nodes are one organ.

    >>> organ_group("Left upper lobe of lung", node=False), organ_group("right adrenal", node=False)
    ('lung', 'adrenal')
    """
    if node:
        return NODES
    plain = _SIDE.sub("", _LOBE.sub("", organ.lower()))
    plain = " ".join(re.sub(r"\bof\b|\bthe\b|[,;]", " ", plain).split())
    if "lung" in plain or "pulmon" in plain:
        return "lung"
    return plain.removesuffix("s") if plain in ("kidneys", "adrenals", "ovaries", "breasts") else plain


def is_node(organ: str) -> bool:
    """Say whether an organ is a lymph node.

    >>> is_node("Mediastinal lymph node, 4R"), is_node("lung nodule")
    (True, False)
    """
    return _NODE.search(organ.lower()) is not None
