"""How vidray-demo is made: a small Qwen2-VL that knows moving coloured shapes."""
