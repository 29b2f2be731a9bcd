"""Finds local activation units in any ONNX graph and replaces them by LocalActivation.

::

    fuse.py        blocks of a graph: found, proven, replaced, reported
      │ interpret.py   what each value is, as a function of one (candidate, behavior) pair
      │   layout.py    which axes of a tensor are candidates, positions, features
      ▼   algebra.py   linear forms over features, activations, layers
    rewrite.py     the nodes that stand in for a block
"""
