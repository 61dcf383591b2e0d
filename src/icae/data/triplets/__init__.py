"""Instruction data: (context, prompt, answer) triplets, read for training and made from corpora."""

from icae.data.triplets.triplet import Triplet, read_triplets

__all__ = ["Triplet", "read_triplets"]
