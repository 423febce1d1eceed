"""The memory plan of a step graph: where every tensor lies, and every byte of state."""

from edgec.plan.calls import Call
from edgec.plan.plan import Place, Plan, Tiling, make_plan

__all__ = ["Call", "Place", "Plan", "Tiling", "make_plan"]
