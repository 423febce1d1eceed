"""The intermediate representation: types, graph, text, verifier, evaluation."""
