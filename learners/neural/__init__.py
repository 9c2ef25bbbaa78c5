"""The neural-linear learner: a small network trained with torch beside the stream, a Bayesian linear head on top.

torch is imported only by the process that trains (`learners.neural.train`): neither the worker nor an agent needs it loaded.
"""
