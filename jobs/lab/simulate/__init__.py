"""Clusters that nobody has here: the product's own code under a virtual clock.

Flow, sessions, engines with their schedulers and admission, encoding batches, credit, pools, the
fleet's second tries and the driver of a job are the classes that run for real. What is simulated is
what they wait for: processors, cards, calls, stores, and their failures. They are coroutines, so an
event loop with a virtual clock runs them as they are; SimPy would want them written again.
"""
