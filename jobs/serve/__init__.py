"""The endpoint: videos and questions over HTTP, as OpenAI's clients ask them and as streams."""
