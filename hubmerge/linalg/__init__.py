"""Linear algebra on single tensors: pure functions in float64, without files or network."""

from __future__ import annotations

from hubmerge.linalg.casting import cast_once
from hubmerge.linalg.directions import NULL_CUT, Directions, Eigenpairs, leading_directions, singular_directions
from hubmerge.linalg.norms import cosine, cosine_of_parts, difference, frobenius_norm, power_of_two_near, total_norm
from hubmerge.linalg.projection import Projection, batched_eigenpairs, project
from hubmerge.linalg.rank import RankRule, break_even_rank, protected_rank
from hubmerge.linalg.sketch import PIECE, Signs, Sketcher, group_cosines, join_sketches, sketch, sketch_cosine
from hubmerge.linalg.sketch import SIZE as SKETCH_SIZE
from hubmerge.linalg.triangle import add_to_triangle, pack_triangle, packed_length, unpack_triangle

__all__ = [
    "NULL_CUT",
    "PIECE",
    "SKETCH_SIZE",
    "Directions",
    "Eigenpairs",
    "Projection",
    "RankRule",
    "Signs",
    "Sketcher",
    "add_to_triangle",
    "batched_eigenpairs",
    "break_even_rank",
    "cast_once",
    "cosine",
    "cosine_of_parts",
    "difference",
    "frobenius_norm",
    "group_cosines",
    "join_sketches",
    "leading_directions",
    "pack_triangle",
    "packed_length",
    "power_of_two_near",
    "project",
    "protected_rank",
    "singular_directions",
    "sketch",
    "sketch_cosine",
    "total_norm",
    "unpack_triangle",
]
