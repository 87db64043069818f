"""`make gpu-check`: what a GPU is to be asked in the ten minutes that one is at hand.

Plain torch on one machine: no Ray, no av, no minio, no vLLM, no network, no checkpoint.
"""
