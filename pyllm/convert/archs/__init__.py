"""How each architecture is converted: one file each, found by its name (see pyllm/convert/mapping.py)."""
