"""The three flags: bundles, evidence models, uncertainty and applicability."""

from .bundles import Bundle, Card, list_bundles, load_bundle, seal_bundle
from .flags import assess

__all__ = ["Bundle", "Card", "assess", "list_bundles", "load_bundle", "seal_bundle"]
