"""Stand-ins for NVIDIA's two libraries, in pure Python, where there is neither GPU nor driver."""
