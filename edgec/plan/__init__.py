"""The memory plan of a step graph: where every tensor lies, and every byte of state."""

from edgec.plan.plan import Call, Place, Plan, make_plan

__all__ = ["Call", "Place", "Plan", "make_plan"]
