"""Finds local activation units in any ONNX graph and replaces them by LocalActivation.

::

    sites.py       where a graph sums weights times behaviors over positions
    fuse.py        the unit of those weights, proven, in the operator's form
      │ reader.py      each value, as a function of one (candidate, behavior);
      │                operators_*.py has a handler per operator, values.py the results
      │   layout.py    which axes of a tensor are candidates, positions, features
      ▼   algebra.py   linear forms over features, activations, layers
    rewrite.py     the nodes that stand in for a block
    cost.py        what the report says of it
    view.py        a graph to read
"""
