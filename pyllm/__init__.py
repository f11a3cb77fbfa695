"""pyllm: runs GGUF language models on the machine you have."""
