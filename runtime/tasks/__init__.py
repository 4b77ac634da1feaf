"""Task trees: a model reasons in JSON under a schema, calls tools, and finished lists of subtasks leave its context.

The parts of a run, which know nothing of models: `task_schema` says what may be written, `TaskReader` turns the text into events,
`PruningStack` says what to drop and `ResidentText` where that is, `Tree` collects, `recording` keeps and replays, `drawing` shows.
"""

from runtime.tasks.pruning import PruningStack
from runtime.tasks.reader import TaskReader
from runtime.tasks.resident import Edit, ResidentText
from runtime.tasks.schema import Task, ToolUse, task_schema
from runtime.tasks.tree import Call, Node, Tree

__all__ = ["Call", "Edit", "Node", "PruningStack", "ResidentText", "Task", "TaskReader", "ToolUse", "Tree", "task_schema"]
