"""Measurements that compare pyllm with other engines; not part of the installed package."""
