"""vidray-demo: a small Qwen2-VL that knows moving coloured shapes."""
