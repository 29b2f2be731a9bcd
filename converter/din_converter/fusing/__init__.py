"""Finds local activation units in any ONNX graph and replaces them by LocalActivation.

::

    sites.py       where a graph sums weights times behaviors over positions
    fuse.py        the unit that those weights are, proven, as the operator takes it
      │ interpret.py   what each value is, as a function of one (candidate, behavior)
      │   layout.py    which axes of a tensor are candidates, positions, features
      ▼   algebra.py   linear forms over features, activations, layers
    rewrite.py     the nodes that stand in for a block
    cost.py        what the report says of it
    view.py        a graph to read
"""
