"""vLLM behind the decoder port, fed slice by slice while the video is still being read.

Only async_engine.py and sliced_model.py import vLLM; everything else here runs without it.
"""
