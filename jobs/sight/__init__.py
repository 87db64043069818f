"""What is seen of vidray at work: numbers, pictures of them, logs and traces."""
