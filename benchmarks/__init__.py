"""Benchmarks: every output checked first, then timed in turns.

``python -m benchmarks.attention`` times local activation alone, from ids to interest;
``python -m benchmarks.model`` the whole DIN, from ids to scores; both against float64
torch. ``python -m benchmarks.encode`` times raw behaviors to padded ids. Letters
everywhere: B requests, N candidates, T positions, D width of a behavior, V valid
(candidate, behavior) pairs.
"""
