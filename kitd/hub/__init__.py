"""A hub of models and datasets, decided: what is asked for, what it may answer. Pure.

Names that come from a hub are hostile until `tree.py` has judged them.
"""
