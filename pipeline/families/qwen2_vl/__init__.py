"""Qwen2-VL: its rules, and nothing of them anywhere else."""
