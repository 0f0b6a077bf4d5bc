"""The scene of 3D Slicer: the only part that knows MRML. Study and Analysis to nodes, and nodes to a Study.

It runs inside Slicer and on the ``slicer-core`` wheel alike. What a scene shows is never a second source of numbers: tables and
charts are filled from the Analysis.
"""

from .appearance import Course, lesion_course
from .bundle import arrange_views, show_marks, write_scene
from .mrml import new_scene, owned_node
from .nodes_to_study import ChosenTimepoint, WrittenStudy, study_from_nodes, study_steps, volume_steps
from .populate import SceneNodes, find_nodes, populate_scene, populate_steps
from .steps import Steps, run_steps
from .transforms import alignment_steps, transform_steps, volume_bounds, write_transform_node

__all__ = [
    "ChosenTimepoint",
    "Course",
    "SceneNodes",
    "Steps",
    "WrittenStudy",
    "alignment_steps",
    "arrange_views",
    "find_nodes",
    "lesion_course",
    "new_scene",
    "owned_node",
    "populate_scene",
    "populate_steps",
    "run_steps",
    "show_marks",
    "study_from_nodes",
    "study_steps",
    "transform_steps",
    "volume_bounds",
    "volume_steps",
    "write_scene",
    "write_transform_node",
]
