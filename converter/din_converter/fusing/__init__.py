"""Finds local activation units in any ONNX graph and replaces them by LocalActivation.

::

    sites.py       where a graph sums weights times behaviors over positions
    fuse.py        the proven unit that computes them, as the operator takes it
      │ reader.py      what each value is, as a function of one (candidate, behavior)
      │   operators_layout.py, operators_linear.py, operators_choice.py   by operator
      │   values.py    pieces, conditions, weighted behaviors, leaves
      │   layout.py    which axes of a tensor are candidates, positions, features
      ▼   algebra.py   linear forms over features, activations, layers
    rewrite.py     the nodes that replace a block
    bags.py        rows of a table pooled over positions, as EmbeddingBag
    cost.py        the block in the report
    view.py        a graph to read
    places.py      the module's own line behind a value
"""
