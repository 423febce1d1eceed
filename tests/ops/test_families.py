import ast
from pathlib import Path

import edgec.ops
from edgec.ops import OPS
from edgec.ops.elementwise import SIGNATURES


def test_every_class_with_a_name_is_an_op_of_the_table() -> None:
    """No file of ops/ is left out of FAMILIES."""
    named = {
        node.name
        for path in Path(edgec.ops.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(s, ast.AnnAssign) and getattr(s.target, "id", "") == "name" and s.value for s in node.body)
    }
    found = {op.__name__ for op in OPS.values()}
    assert named <= found
    assert SIGNATURES.keys() <= OPS.keys()
    assert all(getattr(edgec.ops, op.__name__) is op and op.name == name for name, op in OPS.items())
